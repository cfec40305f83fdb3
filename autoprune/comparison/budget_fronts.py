"""Accuracy against cost over several budgets, and the area that an agent's front covers."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from autoprune.comparison.comparability import Labelled
from autoprune.comparison.run_summary import RunSummary
from autoprune.seeding import numpy_rng
from autoprune.statistics import hypervolume, iqm, iqm_estimate

Point = tuple[float, float]  # share of the dense network's cost, accuracy
Points = dict[str, dict[int, Point]]  # budget → seed → point


def fronts(labelled: Labelled, *, recovered: bool) -> list[dict[str, Any]]:
    """One record per task and kind of cost that was searched at several budgets, by one agent at least.

    The hypervolume is that of each seed which saw every budget: the share of the rectangle from no cost and no accuracy
    to the dense network's cost and full accuracy that the seed's points dominate.

    Args:
        labelled: Agent's label → its runs.
        recovered: Whether networks were trained after pruning.
    """
    tasks: dict[tuple[str, str], dict[str, Points]] = defaultdict(lambda: defaultdict(dict))
    for name, cells in labelled.items():
        for (task, budget), runs in cells.items():
            points = {run.seed: point for run in runs if (point := _point(run, recovered=recovered)) is not None}
            if points:
                tasks[task, runs[0].budget_cost][name][budget] = points
    records = []
    for (task, cost), agents in tasks.items():
        most = max(map(len, agents.values()))
        complete = {name: _front(name, points) for name, points in agents.items() if len(points) == most}
        if most > 1:
            records.append({"task": task, "cost": cost, "agents": complete})
    return records


def _front(name: str, budgets: Mapping[str, Mapping[int, Point]]) -> dict[str, Any]:
    seeds = sorted(set.intersection(*map(set, budgets.values())))
    paths = [zip(*(points[seed] for points in budgets.values()), strict=True) for seed in seeds]
    volumes = np.array([hypervolume(costs, accuracies, cost=1.0, quality=0.0) for costs, accuracies in paths])
    rng = numpy_rng(0, f"comparison/hypervolume/{name}")
    return {
        "points": sorted(tuple(iqm(np.array(list(points.values())).T).tolist()) for points in budgets.values()),
        "seeds": len(seeds),
        "hypervolume": asdict(iqm_estimate([volumes], rng=rng)) if len(volumes) > 1 else None,
    }


def _point(run: RunSummary, *, recovered: bool) -> Point | None:
    metrics = run.own.recovered if recovered else run.own.test or run.own.held_out
    if run.cost_left is None or not metrics or "accuracy" not in metrics:
        return None
    return run.cost_left, metrics["accuracy"]
