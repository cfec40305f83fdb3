"""Plans of depth from block influence (arXiv 2403.03853): they need no evaluation, only a criterion's scores."""

from typing import Literal, get_args

import numpy as np

from autoprune.cost.cost_units import written
from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.plan import PruningPlan
from autoprune.prior.uniform_plan import is_depth
from autoprune.problem.problem import Problem
from autoprune.structure.groups import IntArray, Structure

Order = Literal["influence", "saved", "run"]


def influence_plans(problem: Problem, *, most: int) -> list[PruningPlan]:
    """Returns the plans of every order by which modules may go, equal ones once; none where they need not exist.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        most: How many are returned at most.
    """
    if not any(is_depth(group) for group in problem.structure.groups):
        return []
    plans = []
    try:
        influence = influence_of(problem)
        for order in get_args(Order):
            kept = least_influential_gone(problem.structure, problem.projector, influence, order=order)
            plans.append(problem.structure.plan(kept))
    except ValueError:  # no scores of depth, or a budget that other groups have to meet
        return []
    return list(dict.fromkeys(plans))[:most]


def least_influential_gone(
    structure: Structure, projector: Projector, influence: FloatArray, *, order: Order = "influence"
) -> IntArray:
    """Returns the filled plan without the modules that change least; groups that are not of depth stay whole.

    What fits again once the budget is met comes back, the last in the order first.

    Args:
        structure: The network's groups and layers.
        projector: Moves plans into the budget.
        influence: How much each module changes its stream [groups], NaN for other groups.
        order: "influence": the least influential go first. "saved": those with the least influence for what removing
            them saves of the bounded cost. "run": consecutive ones, the run with the least influence in all.

    Returns:
        Kept units [groups].

    Raises:
        ValueError: The budget is not met without all of them.
    """
    depth = np.flatnonzero(~np.isnan(influence))
    cost, limit = projector.budget.cost, projector.budget.limit
    if order not in get_args(Order):
        raise ValueError(f"agent.order must be one of {list(get_args(Order))}, got {order!r}")
    bare = structure.units
    bare[depth] = 0
    if (least := float(cost(bare))) > limit:
        raise ValueError(
            f"budget {projector.budget.text!r} is {written(limit)} {cost.unit}, but without all "
            f"{len(depth)} modules that can be passed over {written(least)} are left; give more, or try another search"
        )
    if order == "run":
        ranked = _run(structure, projector, influence, depth)
    else:
        worth = influence[depth]
        if order == "saved":
            worth = worth / np.array([max(_saved(structure, projector, int(index)), 1e-30) for index in depth])
        ranked = depth[np.argsort(worth, kind="stable")]  # of equals, the earlier one goes first
    kept = structure.units
    for group in ranked:
        if float(cost(kept)) <= limit:
            break
        kept[group] = 0
    target = np.zeros(len(kept))
    target[ranked] = np.arange(1, len(ranked) + 1)
    return projector.fill(kept, target)


def influence_of(problem: Problem) -> FloatArray:
    """Returns what the criterion says of every module that can be passed over [groups], NaN for other groups.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.

    Raises:
        ValueError: There is no such group, or one has no single score.
    """
    depth = [index for index, group in enumerate(problem.structure.groups) if is_depth(group)]
    if not depth:
        raise ValueError(
            "block influence removes whole modules, and no group of this structure is one; look for some with "
            "structure.prune, such as [blocks] or [attention,ffn] for transformers"
        )
    influence = np.full(len(problem.structure.groups), np.nan)
    for index in depth:
        name = problem.structure.names[index]
        score = problem.scores.get(name)
        if score is None or score.numel() != 1:
            score_text = "none" if score is None else f"shape {tuple(score.shape)}"
            raise ValueError(f"depth group {name!r} needs one score, its influence, and has {score_text}")
        influence[index] = float(score)
    return influence


def _saved(structure: Structure, projector: Projector, index: int) -> float:
    """What removing the group alone saves of the bounded cost."""
    kept = structure.units
    kept[index] = 0
    return float(projector.budget.cost(structure.units) - projector.budget.cost(kept))


def _run(structure: Structure, projector: Projector, influence: FloatArray, depth: IntArray) -> IntArray:
    """The groups in an order that begins with the cheapest run of consecutive ones without which the budget is met."""
    best: tuple[float, int, int] | None = None
    for first in range(len(depth)):
        kept, total = structure.units, 0.0
        for last in range(first, len(depth)):
            kept[depth[last]] = 0
            total += float(influence[depth[last]])
            if float(projector.budget.cost(kept)) <= projector.budget.limit:
                if best is None or total < best[0]:
                    best = total, first, last + 1
                break
    _, first, last = best or (0.0, 0, len(depth))
    inner, others = depth[first:last], np.concatenate([depth[:first], depth[last:]])
    # the run's own, in the network's order, then the others: `least_influential_gone` stops once the budget is met
    return np.concatenate([inner, others[np.argsort(influence[others], kind="stable")]])
