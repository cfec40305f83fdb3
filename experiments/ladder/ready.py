"""A cell made ready as the main job does it, once in a process for all agents."""

import functools
from typing import Any

import numpy as np

from autoprune.evaluation.judge import Judge
from autoprune.evaluation.outcome import Metrics
from autoprune.machine_cache import cache_dir
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem
from autoprune.tabular.table import Table
from experiments.configuration import composed, instantiate_part, prepared_by
from experiments.ladder.stages import Cell

AMC_WARM_UP = 3  # AMC explores for 100 of 400 episodes; here for a third of what there is, at most 100


class Ready:
    """The cell's task, and what its plans are worth on samples that searches do not see."""

    def __init__(self, cell: Cell, *, stored: bool = True) -> None:
        settings = composed(f"task={cell.task}", f"budget={cell.budget}")
        tabular = cell.task.startswith("table_")
        settings["evaluation"]["store"] = cache_dir() if stored and not tabular else None
        self.problem: Problem = prepared_by(settings)
        path = self.problem.task.table
        self.table = None if path is None else Table.load(path)

    @functools.cached_property
    def held_out(self) -> Judge:
        return Judge(self.problem.task, self.problem.held_out)

    @functools.cached_property
    def test(self) -> Judge:
        return Judge(self.problem.task, self.problem.task.data.test)

    def unseen(self, plan: PruningPlan) -> Metrics:
        """On held-out search samples."""
        if self.table is not None:
            return self.table.metrics(plan.kept, on="held_out")
        return self.held_out(self.problem.pruned(plan))

    def proxy(self, plan: PruningPlan) -> float:
        """The score on all samples that searches see."""
        return float(self.problem.objective.uncharged.evaluate([plan], whole=True)[0].score)

    @functools.cached_property
    def bounds(self) -> tuple[float, float] | None:
        """The best plan's score inside the budget, on what is searched by and on held-out samples; tables only."""
        if self.table is None:
            return None
        limit = self.problem.projector.budget.limit
        held_out = self.table.scores(on="held_out")[self.table.feasible(limit)]
        return self.table.best(limit)[1], float(held_out.max())

    def costs(self, plan: PruningPlan) -> dict[str, float]:
        return {name: float(model(np.array(plan.kept))) for name, model in self.problem.costs.items()}


def search_of(agent: str, evaluations: int) -> Any:
    """Anew for every seed: what adapts must not know the seed before."""
    return instantiate_part(_settings_of(agent, evaluations), "agent")


@functools.cache
def _settings_of(agent: str, evaluations: int) -> dict[str, Any]:
    """Composing them takes longer than many a search on a table."""
    extra = []
    if agent == "amc":
        extra = [f"agent.agent.experience.warm_up_episodes={min(100, evaluations // AMC_WARM_UP)}"]
    return composed(f"agent={agent}", *extra)


@functools.cache
def ready(cell: Cell) -> Ready:
    return Ready(cell)


@functools.cache
def dense_accuracy(cell: Cell) -> float:
    """Of the trained network, on test data."""
    at = ready(cell)
    return at.test(at.problem.task.model).accuracy
