"""ATP (arXiv 2502.14770): a transformer's blocks lose more and more by equal steps, and one number says how much."""

import contextlib

import numpy as np

from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.plan import PruningPlan
from autoprune.prior.block_densities import ramp_densities
from autoprune.problem.problem import Problem, best_plan
from autoprune.ranges import Count, checked


@checked
def search(problem: Problem, *, rng: np.random.Generator, trials: Count) -> PruningPlan:
    """The best of so many ramps, from the uniform plan to nearly the steepest that the budget allows.

    The paper tries differences of sparsity in equal steps, nine of them for 32 blocks at 70 %. Here the steps are equal
    parts of the largest difference, and the uniform plan is the first one. Equal plans are evaluated once.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        rng: Draws all that is random in the search; here nothing is.
        trials: Evaluations at most.

    Raises:
        ValueError: The structure has no blocks, or groups that are whole or gone.
    """
    parts = np.arange(trials) / trials
    projected = [problem.projector.project(ramp_densities(problem, float(part))) for part in parts]
    plans = list(dict.fromkeys(problem.structure.plan(kept) for kept in projected))
    with contextlib.suppress(EvaluationsSpent):
        problem.objective.evaluate(plans)
    return best_plan(problem)
