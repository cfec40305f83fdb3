"""Where searches begin."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from autoprune.evaluation.curves import Curve
from autoprune.evaluation.outcome import Outcome
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem
from autoprune.search import sensitivity
from autoprune.search.uniform import uniform_plan

Start = Literal["uniform", "sensitivity"]


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """The plan that a search begins with, and what was paid for to find it."""

    outcome: Outcome
    curves: Mapping[str, Curve] | None = None

    @property
    def others(self) -> Sequence[Outcome]:
        """Of the plans that were evaluated on the way: the dense network, and one group pruned alone."""
        if self.curves is None:
            return []
        first, *_ = self.curves.values()
        return [first.outcomes[-1], *(outcome for curve in self.curves.values() for outcome in curve.outcomes[:-1])]

    def told(self, rewarded: Callable[[Sequence[Outcome]], list[Outcome]]) -> "Prior":
        """The same, with the rewards that an agent is told of it."""
        (outcome,) = rewarded([self.outcome])
        if self.curves is None:
            return Prior(outcome)
        curves = {name: replace(curve, outcomes=tuple(rewarded(curve.outcomes))) for name, curve in self.curves.items()}
        return Prior(outcome, curves)


def first_plan(problem: Problem, *, start: Start, rng: np.random.Generator) -> PruningPlan:
    """The uniform or the sensitivity plan, evaluated; the second costs what sensitivity.price says.

    Raises ValueError, before anything is paid for, where it is neither or there are too few evaluations.
    """
    return prior_of(problem, start=start).outcome.plan


def prior_of(problem: Problem, *, start: Start) -> Prior:
    """The same, with all that was evaluated."""
    if start == "sensitivity":
        return Prior(*sensitivity.evaluated(problem))
    if start != "uniform":
        raise ValueError(f"agent.start must be uniform or sensitivity, got {start!r}")
    return Prior(problem.objective.evaluate([uniform_plan(problem.structure, problem.projector)])[0])
