"""OWL, outlier-weighed layerwise sparsity (arXiv 2310.05175): transformer blocks with more outliers keep more."""

import numpy as np

from autoprune.plan import PruningPlan
from autoprune.prior.block_densities import block_densities, outlier_shares
from autoprune.problem.problem import Problem
from autoprune.ranges import NonNegative, Positive, checked


@checked
def search(problem: Problem, *, rng: np.random.Generator, outlier: Positive, spread: NonNegative) -> PruningPlan:
    """The plan whose densities follow the blocks' shares of outliers; costs one evaluation.

    The budget then scales all of them, and is filled.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        rng: Draws all that is random in the search.
        outlier: A score is one that is more than so many times the mean of its matrix, or of its group's units.
        spread: Half of how far the densities of blocks lie apart; the mean over blocks is the uniform one.

    Raises:
        ValueError: The structure has no blocks, a group's units have no scores, or no density.
    """
    density = block_densities(problem, shares=outlier_shares(problem, outlier=outlier), spread=spread)
    plan = problem.structure.plan(problem.projector.project(density))
    problem.objective.evaluate([plan])
    return plan
