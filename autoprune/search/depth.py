"""Depth by block influence (ShortGPT, arXiv 2403.03853): modules go that change least of what passes through them."""

import numpy as np

from autoprune.plan import PruningPlan
from autoprune.prior.influence_plans import Order, influence_of, least_influential_gone
from autoprune.problem.problem import Problem


def search(problem: Problem, *, rng: np.random.Generator, order: Order) -> PruningPlan:
    """The least influential modules go until the budget is met; costs one evaluation.

    What then fits again comes back, the most influential first. Groups of other kinds stay whole.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        rng: Draws all that is random in the search.
        order: "influence", "saved": influence for what is saved of the cost, or "run": consecutive modules.

    Raises:
        ValueError: The structure has no depth groups, or too few of them for the budget.
    """
    influence = influence_of(problem)
    kept = least_influential_gone(problem.structure, problem.projector, influence, order=order)
    plan = problem.structure.plan(kept)
    problem.objective.evaluate([plan])
    return plan
