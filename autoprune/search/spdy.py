"""SPDY (arXiv 2201.13096): a search over coefficients that rescale the single-group curves.

Each set of coefficients is one plan, by the dynamic program, so every plan is inside the budget. Coefficients of 1 are
the sensitivity plan, where the search begins.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.evaluation.curves import Curve, single_group_curves
from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.plan import PruningPlan
from autoprune.prior.level_switches import DRAWS
from autoprune.prior.sensitivity_plan import sensitivity_plan
from autoprune.prior.starts import price
from autoprune.problem.problem import Problem, best_plan
from autoprune.ranges import Positive, Share, checked


@checked
def search(problem: Problem, *, rng: np.random.Generator, sigma: Positive, share: Share) -> PruningPlan:
    """The best plan of a local search that draws some of the best plan's log-coefficients anew, again and again.

    The curves' evaluations are charged.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        rng: Draws all that is random in the search.
        sigma: Of log-coefficients around 0.
        share: Of the groups, whose coefficients are drawn anew at first; it shrinks to one group at the end.
    """
    price(problem, start="sensitivity")
    curves = single_group_curves(problem.structure, lambda plans: problem.objective.evaluate(plans, phase="curves"))
    best, highest, visited = np.zeros(len(curves)), -math.inf, set[PruningPlan]()
    candidate, plan, tries = best, rescaled_plan(problem, curves, best), problem.objective.left
    try:
        while True:
            visited.add(plan)
            outcome = problem.objective.evaluate([plan])[0]
            if outcome.reward > highest:
                best, highest = candidate, outcome.reward
            count = max(1, math.ceil(share * len(best) * problem.objective.left / tries))
            for _ in range(DRAWS):
                candidate = _redrawn(best, count, sigma, rng)
                plan = rescaled_plan(problem, curves, candidate)
                if plan not in visited:
                    break
    except EvaluationsSpent:
        return best_plan(problem)


def rescaled_plan(problem: Problem, curves: Mapping[str, Curve], logarithms: FloatArray) -> PruningPlan:
    """The dynamic program's plan once every group's losses are multiplied by exp(logarithms) [groups].

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        curves: Group → its loss at each of its levels, alone.
        logarithms: What losses are multiplied by, as logarithms [groups].
    """
    rescaled = {
        name: replace(curve, loss=tuple(factor * loss for loss in curve.loss))
        for (name, curve), factor in zip(curves.items(), np.exp(logarithms).tolist(), strict=True)
    }
    return sensitivity_plan(problem.structure, problem.projector, rescaled)


def _redrawn(logarithms: FloatArray, count: int, sigma: float, rng: np.random.Generator) -> FloatArray:
    """Another [groups], with so many of them drawn anew."""
    redrawn = logarithms.copy()
    redrawn[rng.choice(len(redrawn), count, replace=False)] = rng.normal(0, sigma, count)
    return redrawn
