"""Random plans around the start: the control that whatever learns has to beat."""

import numpy as np

from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.plan import PruningPlan
from autoprune.prior.level_switches import DRAWS, log_midpoint_target
from autoprune.prior.starts import Start, first_plan
from autoprune.problem.problem import Problem, best_plan
from autoprune.ranges import Positive, checked


@checked
def search(problem: Problem, *, rng: np.random.Generator, start: Start, sigma: Positive) -> PruningPlan:
    """The best of the start and of plans with Gaussian noise on its log-densities, as many as evaluations are left.

    No plan is asked for twice, unless DRAWS draws find none.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        rng: Draws all that is random in the search.
        start: The plan that others lie around; what its evaluations cost is charged.
        sigma: The standard deviation of the noise on log-densities, above 0.
    """
    structure = problem.structure
    try:
        centre = np.array(first_plan(problem, start=start).kept, np.int64)
        centre_density = log_midpoint_target(problem.projector, centre)
        visited = {tuple(centre.tolist())}
        while True:
            for _ in range(DRAWS):
                kept = problem.projector.project(centre_density * np.exp(rng.normal(0, sigma, len(centre_density))))
                if tuple(kept.tolist()) not in visited:
                    break
            visited.add(tuple(kept.tolist()))
            problem.objective.evaluate([structure.plan(kept)])
    except EvaluationsSpent:
        return best_plan(problem)
