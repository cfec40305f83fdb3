"""OWL, outlier-weighed layerwise sparsity (arXiv 2310.05175): transformer blocks with more outliers keep more."""

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.plan import PruningPlan
from autoprune.prior.uniform_plan import is_depth, uniform_plan
from autoprune.problem.problem import Problem
from autoprune.ranges import NonNegative, Positive, checked
from autoprune.structure.groups import IntArray

ROUNDING = 1e-9  # of the largest share: blocks that differ by no more are alike


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


def outlier_shares(problem: Problem, *, outlier: Positive) -> FloatArray:
    """Of every block's scores, the share that are outliers in their matrix or group, [blocks]; NaN without groups.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        outlier: How many times the mean a score must be to count as an outlier, above 0.
    """
    blocks = _blocks(problem)
    outliers, total = np.zeros(len(problem.structure.stages)), np.zeros(len(problem.structure.stages))
    for group, block in zip(problem.structure.groups, blocks, strict=True):
        if is_depth(group):
            raise ValueError(f"OWL shares out densities, and group {group.name!r} is whole or gone; try another search")
        scores = problem.scores.get(group.name)
        if scores is None:
            raise ValueError(f"OWL counts outliers among the scores of group {group.name!r}, and it has none")
        if not float(scores.min()) >= 0:
            raise ValueError(
                f"OWL compares scores with their mean, so none may be negative; group {group.name!r} has "
                f"{float(scores.min()):.3g}. Try another importance"
            )
        if block >= 0:
            outliers[block] += int((scores > outlier * scores.mean()).sum())
            total[block] += scores.numel()
    shares: FloatArray = np.divide(outliers, total, out=np.full(len(total), np.nan), where=total > 0)
    return shares


def block_densities(problem: Problem, *, shares: FloatArray, spread: NonNegative) -> FloatArray:
    """The density of every group, [groups]: the uniform one, moved by its block's share.

    The lowest and the highest block are 2 · `spread` apart, and their mean is the uniform one, as in the paper's code.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        shares: Of outliers, of each block [blocks].
        spread: Half of how far blocks' densities lie apart, at least 0.
    """
    plan = uniform_plan(problem.structure, problem.projector)
    uniform = float(np.mean(np.array(plan.kept) / problem.structure.units))
    if not 0 <= spread < uniform:
        raise ValueError(f"agent.spread must be in [0, {uniform:.3g}), the uniform plan's density; got {spread}")
    above = shares - np.nanmin(shares)
    widest = float(np.nanmax(above))
    alike = widest <= ROUNDING * float(np.nanmax(np.abs(shares)))
    moved = np.zeros_like(above) if alike else 2 * spread * (above / widest)
    moved = moved - np.nanmean(moved)
    lowest = uniform + float(np.nanmin(moved))
    if not lowest > 0:
        raise ValueError(
            f"agent.spread={spread} leaves the block with the fewest outliers a density of {lowest:.3g}; "
            f"{uniform / 2:.3g}, half of the uniform plan's, never does"
        )
    return uniform + np.append(np.nan_to_num(moved), 0.0)[_blocks(problem)]  # −1: in none of the blocks


def _blocks(problem: Problem) -> IntArray:
    """Which of the structure's stages each group is in, [groups]; −1 for none of them."""
    stages = problem.structure.stages
    if not stages:
        raise ValueError(
            "OWL shares out densities over a transformer's blocks, and this network has none that are known"
        )
    indices = []
    for group in problem.structure.groups:
        layer = problem.structure.layers_of(group)[0].name
        indices.append(next((at for at, stage in enumerate(stages) if layer.startswith(f"{stage}.")), -1))
    return np.array(indices, np.int64)
