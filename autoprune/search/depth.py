"""Depth by block influence (ShortGPT, arXiv 2403.03853): modules go that change least of what passes through them."""

import numpy as np

from autoprune.cost.cost_units import written
from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.plan import PruningPlan
from autoprune.prior.uniform_plan import is_depth
from autoprune.problem.problem import Problem
from autoprune.structure.groups import IntArray, Structure


def search(problem: Problem, *, rng: np.random.Generator) -> PruningPlan:
    """The least influential modules go until the budget is met; costs one evaluation.

    What then fits again comes back, the most influential first. Groups of other kinds stay whole.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        rng: Draws all that is random in the search.

    Raises:
        ValueError: The structure has no depth groups, or too few of them for the budget.
    """
    influence = _influence(problem)
    plan = problem.structure.plan(least_influential_gone(problem.structure, problem.projector, influence))
    problem.objective.evaluate([plan])
    return plan


def least_influential_gone(structure: Structure, projector: Projector, influence: FloatArray) -> IntArray:
    """The filled plan: influence [groups], NaN for groups that are not of depth → kept [groups].

    Args:
        structure: The network's groups and layers.
        projector: Moves plans into the budget.
        influence: How much each module changes its stream [groups], NaN for other groups.
    """
    depth = np.flatnonzero(~np.isnan(influence))
    order = depth[np.argsort(influence[depth], kind="stable")]  # of equals, the earlier one goes first
    kept, cost = structure.units, projector.budget.cost
    for group in order:
        if float(cost(kept)) <= projector.budget.limit:
            break
        kept[group] = 0
    if (least := float(cost(kept))) > projector.budget.limit:
        raise ValueError(
            f"budget {projector.budget.text!r} is {written(projector.budget.limit)} {cost.unit}, but without all "
            f"{len(depth)} modules that can be passed over {written(least)} are left; give more, or try another search"
        )
    target = np.zeros(len(kept))
    target[order] = np.arange(1, len(order) + 1)
    return projector.fill(kept, target)


def _influence(problem: Problem) -> FloatArray:
    """[groups], NaN for groups that are not of depth."""
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
