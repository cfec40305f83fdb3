"""The plan that other searches begin at, as a search of its own: uniform, by sensitivity or in closed form."""

import numpy as np

from autoprune.plan import PruningPlan
from autoprune.prior.starts import Start, first_plan
from autoprune.problem.problem import Problem


def search(problem: Problem, *, rng: np.random.Generator, start: Start) -> PruningPlan:
    """Returns the plan that `start` names; costs what starts.price says.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        rng: Draws all that is random in the search.
        start: The plan that the search begins at; what its evaluations cost is charged.
    """
    return first_plan(problem, start=start)
