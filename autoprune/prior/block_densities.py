"""Densities that differ from block to block of a transformer: by outliers (OWL), and by equal steps (ATP)."""

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.plan import PruningPlan
from autoprune.prior.uniform_plan import is_depth, uniform_plan
from autoprune.problem.problem import Problem
from autoprune.ranges import NonNegative, Positive
from autoprune.structure.groups import IntArray

ROUNDING = 1e-9  # of the largest share: blocks that differ by no more are alike
OUTLIER, SPREAD = 5.0, 0.08  # of OWL's paper
PARTS = (0.25, 0.5, 0.75)  # of the largest difference, of the ramps that searches begin at


def block_plans(problem: Problem) -> list[PruningPlan]:
    """Returns OWL's plan and three ramps, which need no evaluation to be made; none for networks without blocks.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
    """
    if not problem.structure.stages or any(is_depth(group) for group in problem.structure.groups):
        return []
    densities = [ramp_densities(problem, part) for part in PARTS]
    try:
        shares = outlier_shares(problem, outlier=OUTLIER)
        densities.insert(0, block_densities(problem, shares=shares, spread=SPREAD))
    except ValueError:  # scores that may be negative, or a budget below the spread
        pass
    plans = [problem.structure.plan(problem.projector.project(density)) for density in densities]
    return list(dict.fromkeys(plans))


def ramp_densities(problem: Problem, part: float) -> FloatArray:
    """Returns the density of every group [groups], which falls from the first block to the last by equal steps.

    Block i of L loses S − β (L − 1) / 2 + β (i − 1), with S the uniform plan's sparsity (ATP, arXiv 2502.14770). Groups
    in none of the blocks have the uniform density.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        part: Of the largest β, min(2 S, 2 (1 − S)) / (L − 1), at which the first block loses nothing or the last one
            all; in [0, 1).

    Raises:
        ValueError: The network has no blocks, or a group is whole or gone.
    """
    for group in problem.structure.groups:
        if is_depth(group):
            raise ValueError(f"a ramp gives densities, and group {group.name!r} is whole or gone; try another search")
    blocks, number = blocks_of(problem), len(problem.structure.stages)
    uniform = uniform_density(problem)
    steps = np.linspace(1, -1, number) if number > 1 else np.zeros(1)
    moved = part * min(uniform, 1 - uniform) * steps
    densities: FloatArray = uniform + np.append(moved, 0.0)[blocks]  # −1: in none of the blocks
    return densities


def uniform_density(problem: Problem) -> float:
    """Returns the mean over groups of what the uniform plan keeps of them."""
    plan = uniform_plan(problem.structure, problem.projector)
    return float(np.mean(np.array(plan.kept) / problem.structure.units))


def outlier_shares(problem: Problem, *, outlier: Positive) -> FloatArray:
    """Of every block's scores, the share that are outliers in their matrix or group, [blocks]; NaN without groups.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        outlier: How many times the mean a score must be to count as an outlier, above 0.
    """
    blocks = blocks_of(problem)
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
    uniform = uniform_density(problem)
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
    return uniform + np.append(np.nan_to_num(moved), 0.0)[blocks_of(problem)]  # −1: in none of the blocks


def blocks_of(problem: Problem) -> IntArray:
    """Returns which of the structure's stages each group is in, [groups]; −1 for none of them."""
    stages = problem.structure.stages
    if not stages:
        raise ValueError("these densities differ over a transformer's blocks, and this network has none that are known")
    indices = []
    for group in problem.structure.groups:
        layer = problem.structure.layers_of(group)[0].name
        indices.append(next((at for at, stage in enumerate(stages) if layer.startswith(f"{stage}.")), -1))
    return np.array(indices, np.int64)
