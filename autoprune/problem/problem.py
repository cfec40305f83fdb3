"""The problem: a task made ready under a budget. Every search, environment, policy, experiment and command gets one."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from torch import nn

from autoprune.callers_modes import plain_torch
from autoprune.cost.budget import Budget
from autoprune.cost.encoded_bytes import encoding_error
from autoprune.cost.model import CostModel, FloatArray
from autoprune.cost.projection import Projector
from autoprune.evaluation.candidates import Candidates
from autoprune.evaluation.incumbents import held_out_metrics
from autoprune.evaluation.judge import Judge
from autoprune.evaluation.metered import MeteredObjective, Record
from autoprune.evaluation.outcome import Metrics
from autoprune.importance.criterion import Scores
from autoprune.plan import PruningPlan
from autoprune.problem.group_features import group_features
from autoprune.problem.objective_builder import build_objective
from autoprune.problem.preparation import (
    bounded_costs,
    group_errors,
    ranked_units,
    repaired_networks,
    split_search_role,
    task_structure,
)
from autoprune.problem.spec import ProblemSpec
from autoprune.problem.step_times import OnStep, StepTimes
from autoprune.ranges import Seed, check_value
from autoprune.structure.groups import Structure
from autoprune.task.shipped import shipped_task
from autoprune.task.task import Role, Task

LogAgent = Callable[[Mapping[str, float], int], None]  # of an agent's own numbers and its step
UNLIMITED = sys.maxsize


def _unheard(*_: object) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Problem:
    """Find the best plan inside a budget for a task's network.

    >>> problem = Problem.prepare("digits", ProblemSpec(budget="macs:0.5"))  # doctest: +SKIP
    >>> problem.objective.evaluate([problem.structure.dense])[0].metrics.agreement  # doctest: +SKIP
    1.0
    """

    task: Task
    """The trained network, its data and its metric."""
    spec: ProblemSpec
    """How plans are found, judged and bounded."""
    structure: Structure
    """The groups of coupled layers: one decision each."""
    scores: Scores
    """Group → what the criterion says of its units [units], or of its matrix's weights [outputs, inputs]."""
    errors: Mapping[str, FloatArray]
    """Group → the share of its readers' outputs that is lost with its first k units, in closed form [units + 1]."""
    costs: Mapping[str, CostModel]
    """Cost name → what any plan costs: those of every record, and the budget's."""
    projector: Projector
    """Moves any densities into the budget; it holds the budget."""
    features: FloatArray
    """What an agent may see of each group, under this budget [groups, len(GROUP_FEATURES)]."""
    candidates: Candidates
    """The networks that plans stand for."""
    objective: MeteredObjective
    """Plan → outcome, counted and recorded; `objective.uncharged` judges without counting."""
    held_out: Role
    """The search samples that rewards never see, to choose a plan by."""
    measured: Mapping[str, Any]
    """What was found out about this machine and network: precision, batch size, and what they were chosen by."""
    uncounted: tuple[str, ...] = ()
    """What of the network's costs could not be counted, a sentence each."""
    preparation_seconds: Mapping[str, float] = field(default_factory=dict)
    """Step of making the task ready → how long it took, in seconds."""
    seed: int = 0
    """Where the criterion's and the agent's random numbers begin."""
    folder: Path = Path()
    """Where a search leaves its policy."""
    log_agent: LogAgent = _unheard
    """Takes an agent's own numbers and its step."""

    @classmethod
    @plain_torch(alone=True)
    def prepare(
        cls, task: str | Task, spec: ProblemSpec | None = None, *, seed: int = 0, progress: OnStep = _unheard
    ) -> Self:
        """The task is ready to be searched.

        Args:
            task: One of one's own, or the name of one that comes along.
            spec: None for all defaults.
            seed: Of the criterion's random numbers, at least 0.
            progress: Takes the step that is taken, and how much of it is done, of how much.

        Raises:
            ValueError: Something does not fit; the sentence names the setting.
        """
        check_value(task, str | Task, "the task")
        check_value(spec, ProblemSpec | None, "the spec")
        check_value(seed, Seed, "the seed")
        spec = ProblemSpec() if spec is None else spec
        task = shipped_task(task) if isinstance(task, str) else task
        proxy, held_out = split_search_role(task, spec.evaluation.proxy_samples)
        times = StepTimes(progress)
        structure, device_costs = times.take(
            "structure", task_structure, task, spec.structure, spec.device, progress=partial(progress, "structure")
        )
        countable, projector = times.take(
            "costs", bounded_costs, task, structure, spec.budget, settings=spec.costs, others=device_costs
        )
        costs = countable.recorded()
        structure, scores, ranking = times.take("ranking", ranked_units, task, structure, spec.importance, seed=seed)
        candidates, repair_record = times.take("repair", repaired_networks, task, structure, ranking, spec, proxy=proxy)
        objective, measured = times.take(
            "measuring",
            build_objective,
            candidates,
            costs=costs,
            projector=projector,
            score=spec.score,
            reward=spec.reward,
            settings=spec.evaluation,
        )
        errors = group_errors(structure, candidates.reconstruction)
        features = group_features(structure, scores=scores, errors=errors, costs=costs, budget=projector.budget)
        return cls(
            task=task,
            spec=spec,
            structure=structure,
            scores=scores,
            errors=errors,
            costs=costs,
            projector=projector,
            features=features,
            candidates=candidates,
            objective=MeteredObjective(objective, limit=UNLIMITED, record=_unheard),
            held_out=held_out,
            measured={**measured, **encoding_error(costs), "repair": repair_record},
            uncounted=countable.uncounted,
            preparation_seconds=times.seconds,
            seed=seed,
        )

    def under(self, budget: Budget) -> Self:
        """The same problem under another budget. What is judged for the one is known for the other."""
        objective = replace(self.objective.uncharged, budget=budget)
        features = group_features(
            self.structure, scores=self.scores, errors=self.errors, costs=self.costs, budget=budget
        )
        return replace(
            self,
            projector=Projector(self.structure, budget),
            objective=MeteredObjective(objective, limit=UNLIMITED, record=_unheard),
            features=features,
        )

    def limited(
        self,
        evaluations: int,
        *,
        record: Record = _unheard,
        seed: int | None = None,
        folder: Path = Path(),
        log_agent: LogAgent = _unheard,
    ) -> Self:
        """The same problem for one search, which may have so many plans evaluated.

        Args:
            evaluations: At least 1.
            record: Takes each outcome, its number from 1 and its phase before the search sees it.
            seed: Of the agent; None for the problem's.
            folder: Where a policy is left.
            log_agent: Takes an agent's own numbers and its step.
        """
        return replace(
            self,
            objective=MeteredObjective(self.objective.uncharged, limit=evaluations, record=record),
            seed=self.seed if seed is None else seed,
            folder=folder,
            log_agent=log_agent,
        )

    @plain_torch(alone=True)
    def pruned(self, plan: PruningPlan) -> nn.Module:
        """The smaller network, repaired from the calibration role; no gradient step was made."""
        return self.candidates.pruned(plan)

    @plain_torch(alone=True)
    def held_out_scores(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """Name → score of a network on search samples that no reward has seen; higher is better."""
        judge = Judge(self.task, self.held_out)
        return {name: self.spec.score(judge(network)) for name, network in networks.items()}

    @plain_torch(alone=True)
    def held_out_metrics(self, plans: Sequence[PruningPlan]) -> list[Metrics | None]:
        """Each plan judged as the search judges, on held-out samples; None where it cannot be judged."""
        settings = {name: self.measured[name] for name in ("precision", "batch_size")}
        return held_out_metrics(self.candidates, self.held_out, plans, **settings)

    def close(self) -> None:
        """Workers have ended and the store is closed."""
        self.objective.uncharged.close()


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
