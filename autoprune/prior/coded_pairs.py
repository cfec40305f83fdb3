"""Plans of least summed error over pairs: how many weights of a matrix stay, and how many bits each of these has.

A matrix loses by pruning and by rounding what is left, so its two groups are one decision here. What its outputs lose
at a pair follows from the Gram matrix of its inputs, without evaluating: tr(D G Dᵀ) ÷ tr(W G Wᵀ), D = W − Ŵ.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autoprune.cost.budget_multipliers import BudgetMultipliers
from autoprune.cost.model import CostModel, FloatArray
from autoprune.cost.projection import Projector
from autoprune.plan import PruningPlan
from autoprune.prior.output_sensitivity import output_sensitivities
from autoprune.prior.sensitivity_plan import allocate
from autoprune.prior.uniform_plan import uniform_target
from autoprune.problem.problem import Problem
from autoprune.quantize.shared_weights import shared_values
from autoprune.repair.moments import input_moments
from autoprune.repair.weight_levels import RankedLevels
from autoprune.structure.code_bits import RAW_BITS
from autoprune.structure.groups import IntArray, Structure

DENSITIES = np.geomspace(0.01, 1, 12)  # at which errors are taken; levels between them are interpolated
OUTPUTS = 128  # rows of a matrix whose errors are looked at
ROWS = 4096  # inputs that Gram matrices are made of
RIDGE = 1e-3
MOST_BYTES = 2**30  # of Gram matrices
MOST_OPTIONS = 64  # levels of a group that are options
ROUNDS = 6  # linearisations of the cost


@dataclass(frozen=True, slots=True, eq=False)
class CodedPair:
    """A matrix's two decisions as one."""

    layer: str
    """Its name."""
    groups: tuple[int, int]
    """Indices of the group of its weights and of the group of its bits."""
    options: IntArray
    """[options, 2]: kept units of both."""
    errors: FloatArray
    """[options]: the share of its outputs' energy that is lost, at least 0."""


def pairs_of(structure: Structure) -> dict[str, tuple[int, int]] | None:
    """Returns layer → the groups of its weights and of its bits, or None where some group is in no such pair.

    Args:
        structure: The network's groups and layers.
    """
    bits = {group.coded[0]: index for index, group in enumerate(structure.groups) if group.coded}
    weights = {
        group.compared[0].layer: index for index, group in enumerate(structure.groups) if len(group.compared) == 1
    }
    pairs = {layer: (weights[layer], index) for layer, index in bits.items() if layer in weights}
    return pairs if pairs and 2 * len(pairs) == len(structure.groups) else None


def coded_pairs(problem: Problem) -> list[CodedPair] | None:
    """Returns every matrix's pairs with their errors; None where groups are no pairs, or Gram matrices too large.

    Args:
        problem: What is to be solved; its calibration role is read.
    """
    structure, task, pairs = problem.structure, problem.task, pairs_of(problem.structure)
    if pairs is None:
        return None
    columns = [structure.groups[index].compared[0].size for index, _ in pairs.values()]
    if 8 * sum(size**2 for size in columns) > MOST_BYTES:
        return None
    moments = input_moments(
        task.model,
        structure,
        task.data.calibration,
        names=tuple(pairs),
        rows=ROWS,
        forward=task.forward,
        generator=torch.Generator().manual_seed(0),
    )
    levels = problem.candidates.levels or RankedLevels(task.model, structure, problem.candidates.ranking)
    coded = []
    for layer, (density, bits) in pairs.items():
        if not moments[layer].drawn:
            return None
        has_bias = getattr(task.model.get_submodule(layer), "bias", None) is not None
        gram, _ = moments[layer].gram(layer, centred=has_bias, ridge=RIDGE)
        units, kept_levels = structure.groups[density].units, np.array(structure.groups[density].levels)
        kept = np.unique([kept_levels[np.abs(kept_levels - share * units).argmin()] for share in DENSITIES])
        widths = np.array(structure.groups[bits].levels)
        dense = levels(layer, units)
        table = np.array([[_error(dense, levels(layer, int(k)), int(b), gram) for b in widths] for k in kept])
        chosen = kept_levels[np.unique(np.geomspace(1, len(kept_levels), MOST_OPTIONS).round().astype(int) - 1)]
        rows = np.stack([np.interp(chosen, kept, column) for column in table.T], axis=1)
        options = np.stack(np.meshgrid(chosen, widths, indexing="ij"), axis=-1).reshape(-1, 2)
        coded.append(CodedPair(layer, (density, bits), options, rows.reshape(-1)))
    return coded


def least_error_plans(problem: Problem, pairs: Sequence[CodedPair], powers: Sequence[float]) -> list[PruningPlan]:
    """Returns the filled plans of least summed error, by every power of errors, plain and by how much outputs matter.

    Args:
        problem: Whose budget is spent.
        pairs: Of all its groups.
        powers: That errors are raised to.
    """
    labelled = problem.task.data.calibration.targets is not None
    weights = output_sensitivities(problem.task, [pair.layer for pair in pairs]) if labelled else {}
    plans = []
    for weighted in (False, True):
        for power in powers:
            scale = [np.sqrt(weights.get(pair.layer, 1.0)) if weighted else 1.0 for pair in pairs]
            losses = [each * pair.errors**power for each, pair in zip(scale, pairs, strict=True)]
            plans.append(problem.structure.plan(_least(problem.projector, problem.structure, pairs, losses)))
    return list(dict.fromkeys(plans))


def _least(
    projector: Projector, structure: Structure, pairs: Sequence[CodedPair], losses: Sequence[FloatArray]
) -> IntArray:
    """The dynamic program on costs along every pair, linearised around its last solution."""
    current = projector.project(uniform_target(structure))
    best, least = current, np.inf
    multipliers = BudgetMultipliers(projector.budget)
    for _ in range(ROUNDS):
        cost = multipliers.cost
        costs = [_costs(cost, current, pair) for pair in pairs]
        present = sum(float(_costs(cost, current, pair, present=True)[0]) for pair in pairs)
        choice = allocate(list(losses), costs, multipliers.limit - float(cost(current)) + present)
        kept = current.copy()
        for pair, index in zip(pairs, choice, strict=True):
            kept[list(pair.groups)] = pair.options[index]
        inside = projector.budget.meets(kept)
        # Inside of the budget it is filled as it is; a projection would trade bits for weights.
        filled = projector.fill(kept, kept.astype(np.float64)) if inside else projector.project(kept / structure.units)
        lost = sum(float(loss[_nearest(pair, filled)]) for pair, loss in zip(pairs, losses, strict=True))
        if lost < least:
            best, least = filled, lost
        settled = multipliers.follow(kept)
        if settled and (filled == current).all():
            break
        current = filled
    return best


def _costs(cost: CostModel, current: IntArray, pair: CodedPair, *, present: bool = False) -> FloatArray:
    """[options]: what the plan costs with each; or what it costs as it is [1]."""
    density, bits = pair.groups
    options = current[None, list(pair.groups)] if present else pair.options
    costs = np.empty(len(options))
    for width in np.unique(options[:, 1]):
        own = options[:, 1] == width
        plan = current.copy()
        plan[bits] = width
        costs[own] = cost.along(plan, density, options[own, 0])
    return costs


def _nearest(pair: CodedPair, kept: IntArray) -> int:
    """The option that is nearest to what a plan keeps."""
    units, bits = kept[list(pair.groups)]
    return int((np.abs(pair.options[:, 0] - units) + 1e6 * np.abs(pair.options[:, 1] - bits)).argmin())


def _error(dense: Tensor, kept: Tensor, bits: int, gram: Tensor) -> float:
    """The share of the outputs' energy that is lost: [outputs, columns] twice, gram [groups, columns, columns]."""
    coded = kept if bits >= RAW_BITS else shared_values(kept, bits)
    groups = len(gram)
    index = torch.linspace(0, len(dense) // groups - 1, min(OUTPUTS, len(dense) // groups)).round().long()
    lost, whole = (rows.double().unflatten(0, (groups, -1))[:, index] for rows in (dense - coded, dense))
    gram = gram.double()
    energy = float((whole @ gram * whole).sum())
    return float((lost @ gram * lost).sum()) / energy if energy > 0 else 0.0
