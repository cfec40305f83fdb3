"""What every search is given, and the one signature that all of them share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from torch import Tensor

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.evaluation.metered import MeteredObjective
from autoprune.plan import PruningPlan
from autoprune.problem.prepare import Prepared
from autoprune.structure.groups import Structure

LogAgent = Callable[[Mapping[str, float], int], None]  # of an agent's own numbers and its step


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Find the best plan inside the projector's budget with the objective's evaluations.

    scores: group → what the criterion says of its units [units], or of its matrix's weights [outputs, inputs].
    features [groups, len(GROUP_FEATURES)]: what an agent may see. errors: group → how much of its readers' outputs is
    lost when so many of its units are kept, in closed form [units + 1]. folder: where a policy is left. log_agent:
    takes an agent's own numbers and its step.
    """

    task: str
    seed: int
    structure: Structure
    projector: Projector
    objective: MeteredObjective
    scores: Mapping[str, Tensor]
    features: FloatArray
    errors: Mapping[str, FloatArray]
    folder: Path
    log_agent: LogAgent

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        *,
        objective: MeteredObjective,
        seed: int,
        folder: Path,
        log_agent: LogAgent = lambda metrics, step: None,
    ) -> Self:
        """What a prepared task asks of a search, under its own budget."""
        return cls(
            task=prepared.task.name,
            seed=seed,
            structure=prepared.structure,
            projector=prepared.projector,
            objective=objective,
            scores=prepared.scores,
            features=prepared.features,
            errors=prepared.errors,
            folder=folder,
            log_agent=log_agent,
        )


class Search(Protocol):
    """Returns the best plan it has found; ends by itself, or when the objective says that all evaluations are spent."""

    def __call__(self, problem: Problem, *, rng: np.random.Generator) -> PruningPlan: ...


def best_plan(problem: Problem) -> PruningPlan:
    """The plan of the best feasible outcome so far. Raises RuntimeError where there is none."""
    if problem.objective.best is None:
        raise RuntimeError(
            f"the search spent {problem.objective.spent} of {problem.objective.limit} evaluations and none of its "
            "plans met the budget; give it more with evaluations=N"
        )
    return problem.objective.best.plan
