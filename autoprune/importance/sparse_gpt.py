"""What a layer's outputs would lose without one weight, the others making up for it (arXiv 2301.00774)."""

import torch
from torch import Tensor, nn

from autoprune.importance.block_influence import with_block_influence
from autoprune.importance.criterion import Scores
from autoprune.importance.gram import input_grams, inverse_factor
from autoprune.importance.unit_weights import compared_weight
from autoprune.ranges import Positive
from autoprune.structure.groups import Structure
from autoprune.task.task import Forward, Loss, Role


@torch.no_grad()
def sparse_gpt(
    model: nn.Module,
    structure: Structure,
    role: Role,
    *,
    loss: Loss,
    forward: Forward,
    generator: torch.Generator,
    damping: Positive,
) -> Scores:
    """Scores a single weight by w² / [H⁻¹]ⱼⱼ, H = the mean of x xᵀ + λI: the squared error without it, after repair.

    An optimal brain surgeon's score of each weight alone; `evaluation.sparse_gpt` scores again as weights go. A weight
    whose input is always zero scores next to nothing. Modules that can be passed over are scored by block influence.

    Args:
        model: The dense network, in eval mode.
        structure: The network's groups and layers.
        role: The samples that are read.
        loss: (outputs, targets) → a scalar; used by criteria that need gradients.
        forward: (network, inputs) → outputs: how the network is called.
        generator: Draws all that is random here.
        damping: Λ, relative to the mean of H's diagonal.

    Raises:
        ValueError: Units are no single weights.
    """
    others = [group.name for group in structure.groups if group.members]
    if others:
        raise ValueError(
            f"sparse_gpt scores single weights, and the units of {len(others)} groups are none (the first is "
            f"{others[0]!r}); use activation_norm or taylor for these, or prune weights only (structure.prune)"
        )
    compared = {group.name: group.compared[0].layer for group in structure.groups if group.compared}
    grams = input_grams(model, tuple(compared.values()), role, forward=forward)
    costs = {id(gram): _costs(gram, damping) for gram in grams.values()}  # some layers share one
    scores = {}
    for group in structure.groups:
        if group.compared:
            per_square = costs[id(grams[compared[group.name]])]
            scores[group.name] = (compared_weight(model, group).double().square() * per_square).float().cpu()
    return with_block_influence(scores, model, structure, role, forward=forward)


def _costs(gram: Tensor, damping: float) -> Tensor:
    """What removing one of the inputs costs for each squared unit of its weight, [inputs]."""
    return 1 / inverse_factor(gram, damping=damping).square().sum(dim=0)  # the diagonal of H⁻¹
