"""The sensitivity-based plan: single-group error curves, and the dynamic program that spends the budget on them.

The idea is SPDY's (arXiv 2201.13096) without its search. Groups are assumed not to interact in their errors; costs do
interact (a layer's MACs are its outputs times its inputs), so the program is solved on costs linearised around its last
solution, and repeated until it does not improve.
"""

from collections.abc import Mapping

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.evaluation.curves import Curve, curve_plans, single_group_curves
from autoprune.plan import PruningPlan
from autoprune.search.problem import Problem
from autoprune.structure.groups import IntArray, Structure

BINS = 2_000  # resolution of the budget in the dynamic program
ROUNDS = 12  # linearisations


def search(problem: Problem, *, rng: np.random.Generator) -> PruningPlan:
    """The best plan by the single-group curves; costs one evaluation per point of a curve, and one for the plan."""
    price(problem)  # before anything is paid for
    curves = single_group_curves(problem.structure, lambda plans: problem.objective.evaluate(plans, phase="curves"))
    plan = sensitivity_plan(problem.structure, problem.projector, curves)
    problem.objective.evaluate([plan])
    return plan


def price(problem: Problem) -> int:
    """What the search costs in evaluations. Raises ValueError where fewer are left."""
    points = sum(len(plans) for plans in curve_plans(problem.structure).values())
    if problem.objective.left < points + 2:
        raise ValueError(
            f"the sensitivity plan needs {points + 2} evaluations: {points} for single-group curves, the dense network "
            f"and the plan itself; got {problem.objective.left}. Give it more with evaluations=N"
        )
    return points + 2


def sensitivity_plan(structure: Structure, projector: Projector, curves: Mapping[str, Curve]) -> PruningPlan:
    """The filled plan inside the budget that loses least if single-group losses add up."""
    losses = [curves[group.name].at(group.levels) for group in structure.groups]
    current = projector.project(np.ones(len(structure.groups)))
    best, best_loss = current, _total(current, projector, losses)
    for _ in range(ROUNDS):
        costs = [_linearised(projector, current, g) for g in range(len(losses))]
        limit = (
            projector.budget.limit
            - float(projector.budget.cost(current))
            + sum(float(c[np.searchsorted(projector.levels[g], current[g])]) for g, c in enumerate(costs))
        )
        choice = allocate(losses, costs, limit)
        wished = np.array([projector.levels[g][i] for g, i in enumerate(choice)])
        candidate = projector.project(wished / structure.units)
        candidate_loss = _total(candidate, projector, losses)
        if candidate_loss < best_loss:
            best, best_loss = candidate, candidate_loss
        if (candidate == current).all():
            break
        current = candidate
    return structure.plan(_improved(best, projector, losses))


def allocate(losses: list[FloatArray], costs: list[FloatArray], limit: float) -> list[int]:
    """The level of every group that minimises Σ loss with Σ cost ≤ limit: exact up to 1/BINS of the limit.

    losses, costs: per group [levels]. Where nothing fits, every group is at its cheapest level.
    """
    cheapest = [float(c.min()) for c in costs]
    spare = limit - sum(cheapest)
    if spare <= 0:
        return [int(c.argmin()) for c in costs]
    steps = [np.ceil((c - low) / spare * BINS - 1e-9).astype(np.int64) for c, low in zip(costs, cheapest, strict=True)]
    value = np.zeros(BINS + 1)  # value[b]: least loss of the groups so far with at most b bins
    choices = []
    for loss, step in zip(losses, steps, strict=True):
        options = np.full((len(loss), BINS + 1), np.inf)
        for level, (lost, bins) in enumerate(zip(loss, step, strict=True)):
            if bins <= BINS:
                options[level, bins:] = value[: BINS + 1 - bins] + lost
        choices.append(options.argmin(axis=0))
        value = options.min(axis=0)
    left, chosen = BINS, []
    for choice, step in zip(reversed(choices), reversed(steps), strict=True):
        level = int(choice[left])
        chosen.append(level)
        left -= int(step[level])
    return chosen[::-1]


def _linearised(projector: Projector, current: IntArray, group: int) -> FloatArray:
    """What each level of the group costs when the others stay as they are, [levels]."""
    return projector.budget.cost.along(current, group, projector.levels[group])


def _total(kept: IntArray, projector: Projector, losses: list[FloatArray]) -> float:
    return float(
        sum(loss[np.searchsorted(levels, k)] for loss, levels, k in zip(losses, projector.levels, kept, strict=True))
    )


def _improved(kept: IntArray, projector: Projector, losses: list[FloatArray]) -> IntArray:
    """Moves units from one group to another while the predicted loss falls: what linearised costs left undone."""
    best, best_loss = kept, _total(kept, projector, losses)
    improved = True
    while improved:
        improved = False
        for giver in range(len(kept)):
            for taker in range(len(kept)):
                candidate = _moved(best, giver, taker, projector)
                if candidate is None:
                    continue
                loss = _total(candidate, projector, losses)
                if loss < best_loss - 1e-12:
                    best, best_loss, improved = candidate, loss, True
    return best


def _moved(kept: IntArray, giver: int, taker: int, projector: Projector) -> IntArray | None:
    """One level less of `giver`, and as many units of `taker` as then fit."""
    levels, place = projector.levels[giver], np.searchsorted(projector.levels[giver], kept[giver])
    if giver == taker or place == 0:
        return None
    moved = kept.copy()
    moved[giver] = levels[place - 1]
    costs = projector.budget.cost.along(moved, taker, projector.levels[taker])
    moved[taker] = projector.levels[taker][(costs <= projector.budget.limit).sum() - 1]
    return projector.fill(moved, moved.astype(np.float64)) if moved[taker] > kept[taker] else None
