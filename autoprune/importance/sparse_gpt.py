"""What a layer's outputs would lose without one weight, the others making up for it (arXiv 2301.00774)."""

import torch
from torch import Tensor

from autoprune.importance.criterion import CriterionInputs
from autoprune.importance.gram import input_grams, inverse_factor
from autoprune.importance.unit_weights import compared_weight
from autoprune.ranges import Positive


@torch.no_grad()
def sparse_gpt(given: CriterionInputs, *, damping: Positive) -> dict[str, Tensor]:
    """Scores a single weight by w² / [H⁻¹]ⱼⱼ, H = the mean of x xᵀ + λI: the squared error without it, after repair.

    An optimal brain surgeon's score of each weight alone; `evaluation.sparse_gpt` scores again as weights go. A weight
    whose input is always zero scores next to nothing.

    Args:
        given: The network, its groups and the calibration samples.
        damping: Λ, relative to the mean of H's diagonal.

    Raises:
        ValueError: Units are no single weights.
    """
    others = [group.name for group in given.structure.groups if group.members]
    if others:
        raise ValueError(
            f"sparse_gpt scores single weights, and the units of {len(others)} groups are none (the first is "
            f"{others[0]!r}); use activation_norm or taylor for these, or prune weights only (structure.prune)"
        )
    compared = {group.name: group.compared[0].layer for group in given.structure.groups if group.compared}
    grams = input_grams(given.model, tuple(compared.values()), given.role, forward=given.forward)
    costs = {id(gram): _costs(gram, damping) for gram in grams.values()}  # some layers share one
    scores = {}
    for group in given.structure.groups:
        if group.compared:
            per_square = costs[id(grams[compared[group.name]])]
            scores[group.name] = (compared_weight(given.model, group).double().square() * per_square).float().cpu()
    return scores


def _costs(gram: Tensor, damping: float) -> Tensor:
    """What removing one of the inputs costs for each squared unit of its weight, [inputs]."""
    return 1 / inverse_factor(gram, damping=damping).square().sum(dim=0)  # the diagonal of H⁻¹
