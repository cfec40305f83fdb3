"""What the figures measure with: tasks made ready as `autoprune search` makes them by default."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.cost.budget import parse_budget
from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.env.action_scale import PlanScale
from autoprune.evaluation.curves import single_group_curves
from autoprune.evaluation.evaluator import SlicedEvaluator
from autoprune.evaluation.metered import MeteredObjective
from autoprune.evaluation.objective import Objective
from autoprune.plan import PruningPlan
from autoprune.prior.sensitivity_plan import sensitivity_plan
from autoprune.problem.problem import UNLIMITED, Problem
from experiments.configuration import composed, prepared_by

LEAST_DENSITY = 0.1  # of random plans, as in conf/agent/random.yaml
REACH, STD = 1.5, 0.15  # of plans around another one, as in conf/agent/ppo.yaml
TOY = ("evaluation.proxy_samples=100", "evaluation.batch_size=20", "evaluation.precision=fp32")


@dataclass(frozen=True, slots=True)
class Bench:
    """quick: toy sizes that only show that everything runs. repeats: None is each figure's own number.

    freed_memory_kept: what the allocator does. scratch: an empty folder. No judged plan is taken from a store, and none
    is left in one.
    """

    scratch: Path
    quick: bool = False
    repeats: int | None = None
    freed_memory_kept: bool = False
    seed: int = 0
    _ready: dict[str, "Ready"] = field(default_factory=dict)

    def times(self, usual: int) -> int:
        return self.repeats or (2 if self.quick else usual)

    def size(self, full: int, toy: int) -> int:
        return toy if self.quick else full

    def rng(self, figure: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, figure])

    def ready(self, task: str) -> "Ready":
        """The shipped task, made ready once; digits in its place where sizes are toy."""
        name = "digits" if self.quick else task
        if name not in self._ready:
            self._ready[name] = _made_ready(name, self.seed, self.quick)
        return self._ready[name]


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A task that is made ready, and what stands in its configuration."""

    problem: Problem

    def evaluator(self) -> SlicedEvaluator:
        known = self.problem.measured
        return self.problem.candidates.evaluator(precision=known["precision"], batch_size=known["batch_size"])

    @property
    def batches(self) -> int:
        return self.problem.objective.uncharged.batches

    def projector(self, budget: str) -> Projector:
        structure = self.problem.structure
        return Projector(structure, parse_budget(budget, self.problem.costs, structure))

    def objective(self, **changes: Any) -> Objective:
        """An objective that has not judged anything yet."""
        return replace(self.problem.objective.uncharged, _judged={}, _failed={}, _worst=None, **changes)

    def afresh(self, **changes: Any) -> Problem:
        objective = self.objective(**changes)
        return replace(self.problem, objective=MeteredObjective(objective, limit=UNLIMITED, record=lambda *_: None))

    def says(self) -> dict[str, Any]:
        return {
            "task": self.problem.task.name,
            "samples": len(self.problem.candidates.proxy),
            **self.problem.measured,
        }


def random_plans(ready: Ready, projector: Projector, count: int, rng: np.random.Generator) -> list[PruningPlan]:
    """Different plans that fill the budget, densities drawn as random search draws them."""
    groups = len(ready.problem.structure.groups)
    return _different(ready, projector, count, lambda: rng.uniform(LEAST_DENSITY, 1, groups))


def plans_around(
    ready: Ready, projector: Projector, centre: PruningPlan, count: int, rng: np.random.Generator
) -> list[PruningPlan]:
    """Different plans that fill the budget, drawn as PPO draws its first ones around the plan it corrects."""
    scale = PlanScale(np.array(centre.kept) / ready.problem.structure.units, REACH)
    return _different(ready, projector, count, lambda: scale.density(rng.normal(0, STD, len(centre.kept))))


def sensitivity(ready: Ready, projector: Projector) -> PruningPlan:
    structure, objective = ready.problem.structure, ready.objective(race=None)
    curves = single_group_curves(structure, partial(objective.evaluate, whole=True))
    return sensitivity_plan(structure, projector, curves)


def _made_ready(task: str, seed: int, quick: bool) -> Ready:
    settings = composed(f"task={task}", f"seed={seed}", "evaluation.store=null", *(TOY if quick else ()))
    return Ready(prepared_by(settings))


def _different(ready: Ready, projector: Projector, count: int, density: Callable[[], FloatArray]) -> list[PruningPlan]:
    found: dict[PruningPlan, None] = {}
    for _ in range(100 * count):
        found.setdefault(ready.problem.structure.plan(projector.project(density())))
        if len(found) == count:
            return list(found)
    raise RuntimeError(f"only {len(found)} different plans of {count} were found within {projector.budget.text}")
