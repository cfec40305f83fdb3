"""Random plans on the budget: strong with a good objective (EagleEye, arXiv 2007.02491)."""

import numpy as np

from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem, best_plan
from autoprune.ranges import Density, checked


@checked
def search(problem: Problem, *, rng: np.random.Generator, least_density: Density) -> PruningPlan:
    """The best of as many plans as there are evaluations, densities drawn uniformly from [least_density, 1].

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        rng: Draws all that is random in the search.
        least_density: The lower end of the densities that are drawn, in (0, 1).
    """
    structure = problem.structure
    try:
        while True:
            density = rng.uniform(least_density, 1, len(structure.groups))
            problem.objective.evaluate([structure.plan(problem.projector.project(density))])
    except EvaluationsSpent:
        return best_plan(problem)
