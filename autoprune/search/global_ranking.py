"""Global ranking: the units of all groups in one order by the criterion's scores, and the best of them stay.

As they are, or made comparable: divided by their group's mean, or by LAMP (arXiv 2010.07611), the squared score ÷ the
sum of the squared scores that are not smaller.
"""

from typing import Literal

import numpy as np
from torch import Tensor

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem
from autoprune.structure.groups import Group, IntArray

Scale = Literal["none", "mean", "lamp"]


def search(problem: Problem, *, rng: np.random.Generator, scale: Scale) -> PruningPlan:
    """The best units of all groups, as many as the budget allows; costs one evaluation.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        rng: Draws all that is random in the search.
        scale: What scores are divided by: "none", "mean" or the like.
    """
    kept = best_units(problem.projector, unit_scores(problem, scale=scale))
    plan = problem.structure.plan(kept)
    problem.objective.evaluate([plan])
    return plan


def unit_scores(problem: Problem, *, scale: Scale) -> list[FloatArray]:
    """The score of every unit, highest first, [units] of each group.

    Of a matrix that loses single weights, the k-th score is the mean over comparisons of the k-th best weight's.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        scale: "mean" divides by the group's mean, or, where a group is one unit, by the mean of all such groups.

    Raises:
        ValueError: A group has no scores, or none that the scale can work with.
    """
    if scale not in ("none", "mean", "lamp"):
        raise ValueError(f"agent.scale must be none, mean or lamp, got {scale!r}")
    groups = problem.structure.groups
    if scale == "none":
        return [_descending(group, problem.scores.get(group.name)) for group in groups]
    for group in groups:
        _check_comparable(group, problem.scores.get(group.name), scale)
    if scale == "lamp":
        squares = [_descending(group, problem.scores.get(group.name), power=2) for group in groups]
        return [_divided(square, square.cumsum()) for square in squares]
    scores = [_descending(group, problem.scores.get(group.name)) for group in groups]
    alone = [float(values[0]) for values in scores if len(values) == 1]
    means = [float(np.mean(alone)) if len(values) == 1 else float(values.mean()) for values in scores]
    return [_divided(values, np.full(len(values), mean)) for values, mean in zip(scores, means, strict=True)]


def best_units(projector: Projector, values: list[FloatArray]) -> IntArray:
    """The filled plan of the highest values; per group [units], highest first → kept [groups].

    Where a group's next level does not fit, the next groups in the order get what is left.

    Args:
        projector: Moves plans into the budget.
        values: Of each group's units, highest first [units].
    """
    thresholds = np.unique(np.concatenate(values))  # ascending; above the last one nothing stays but the floor
    low, high = 0, len(thresholds)
    while low < high:
        middle = (low + high) // 2
        fits = float(projector.budget.cost(_above(projector, values, thresholds[middle]))) <= projector.budget.limit
        low, high = (low, middle) if fits else (middle + 1, high)
    kept = _above(projector, values, float(thresholds[low]) if low < len(thresholds) else np.inf)
    following = projector.next_levels(kept)
    levels = zip(values, kept.tolist(), following.tolist(), strict=True)
    worth = [float(of[now:more].mean()) if more > now else -np.inf for of, now, more in levels]
    places: FloatArray = np.empty(len(kept))
    places[np.argsort(worth, kind="stable")] = np.arange(len(kept)) / len(kept)  # the best is nearly a level short
    return projector.fill(kept, np.add(kept, places * (following - kept), dtype=np.float64))


def _above(projector: Projector, values: list[FloatArray], threshold: float) -> IntArray:
    """The highest levels whose units all are worth at least the threshold, or the floor's: [groups]."""
    kept = []
    for levels, of in zip(projector.levels, values, strict=True):
        worthy = np.searchsorted(-of, -threshold, "right")
        kept.append(levels[max(0, int(levels.searchsorted(worthy, "right")) - 1)])
    return np.maximum(np.array(kept, np.int64), projector.floor)


def _descending(group: Group, scores: Tensor | None, *, power: int = 1) -> FloatArray:
    if scores is None:
        raise ValueError(f"a global ranking goes by the scores of units, and group {group.name!r} has none")
    ranked = scores.detach().cpu().double().reshape(-1, group.units).sort(dim=1, descending=True).values
    ranked_mean: FloatArray = (ranked**power).mean(dim=0).numpy()
    return ranked_mean


def _check_comparable(group: Group, scores: Tensor | None, scale: Scale) -> None:
    if scores is not None and float(scores.min()) < 0:
        raise ValueError(
            f"agent.scale={scale} needs scores that are not negative, and group {group.name!r} has "
            f"{float(scores.min()):.3g}; try another importance, or agent.scale=none"
        )
    if scale == "lamp" and group.units == 1:
        raise ValueError(
            f"LAMP compares a unit with its group's others, and group {group.name!r} is one unit; try agent=global, or "
            "agent=block_influence where all are"
        )


def _divided(values: FloatArray, by: FloatArray) -> FloatArray:
    """0 where both are."""
    return np.asarray(np.divide(values, by, out=np.zeros_like(values), where=by > 0))
