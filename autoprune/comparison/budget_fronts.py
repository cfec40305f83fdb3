"""Accuracy against cost over several budgets, and the area that an agent's front covers."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from autoprune.comparison.comparability import Labelled
from autoprune.comparison.run_summary import RunSummary
from autoprune.comparison.statistics import hypervolume, iqm, iqm_estimate
from autoprune.seeding import numpy_rng

Point = tuple[float, float]  # share of the dense network's cost, accuracy


def fronts(labelled: Labelled, *, recovered: bool) -> list[dict[str, Any]]:
    """One record per task and kind of cost that was searched at several budgets, by one agent at least.

    The hypervolume is that of each seed which saw every budget: the share of the rectangle from no cost and no accuracy
    to the dense network's cost and full accuracy that the seed's points dominate.
    """
    known: dict[tuple[str, str], dict[str, dict[str, dict[int, Point]]]] = defaultdict(lambda: defaultdict(dict))
    for name, cells in labelled.items():
        for (task, budget), trials in cells.items():
            points = {trial.seed: _point(trial, recovered=recovered) for trial in trials}
            sound = {seed: point for seed, point in points.items() if point is not None}
            if sound:
                known[task, trials[0].budget_cost][name][budget] = sound
    found = []
    for (task, cost), agents in known.items():
        every = max(len(budgets) for budgets in agents.values())
        full = {name: budgets for name, budgets in agents.items() if len(budgets) == every}
        if every > 1:
            found.append({"task": task, "cost": cost, "agents": {n: _front(n, b) for n, b in full.items()}})
    return found


def _front(name: str, budgets: Mapping[str, Mapping[int, Point]]) -> dict[str, Any]:
    seeds = sorted(set.intersection(*(set(points) for points in budgets.values())))
    volumes = []
    for seed in seeds:
        costs, accuracies = zip(*(points[seed] for points in budgets.values()), strict=True)
        volumes.append(hypervolume(costs, accuracies, cost=1.0, quality=0.0))
    means = [np.array(list(points.values())) for points in budgets.values()]
    points = sorted((float(iqm(values[:, 0])), float(iqm(values[:, 1]))) for values in means)
    rng = numpy_rng(0, f"comparison/hypervolume/{name}")
    volume = asdict(iqm_estimate([np.array(volumes)], rng=rng)) if len(volumes) > 1 else None
    return {"points": points, "seeds": len(seeds), "hypervolume": volume}


def _point(trial: RunSummary, *, recovered: bool) -> Point | None:
    metrics = trial.own.recovered if recovered else trial.own.test or trial.own.held_out
    if trial.cost_left is None or not metrics or "accuracy" not in metrics:
        return None
    return trial.cost_left, metrics["accuracy"]
