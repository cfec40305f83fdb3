"""The norm of a unit's weights (Li et al., arXiv 1608.08710)."""

import torch
from torch import nn

from autoprune.importance.block_influence import with_block_influence
from autoprune.importance.criterion import Scores
from autoprune.importance.unit_weights import compared_weight, unit_weights
from autoprune.ranges import Positive
from autoprune.structure.groups import Structure
from autoprune.task.task import Forward, Loss, Role


@torch.no_grad()
def magnitude(  # noqa: PLR0913 - a Criterion and its settings
    model: nn.Module,
    structure: Structure,
    role: Role,
    *,
    loss: Loss,
    forward: Forward,
    generator: torch.Generator,
    order: Positive,
    read: bool,
) -> Scores:
    """Scores a unit by the norm of the weights that write it, added up over its group's layers; a weight by its size.

    Modules that can be passed over are scored by block influence.

    Args:
        model: The dense network, in eval mode.
        structure: The network's groups and layers.
        role: Samples for block influence.
        loss: Not read.
        forward: (network, inputs) → outputs: how the network is called.
        generator: Not read.
        order: Of the norm: 1 or 2 are usual.
        read: Whether the weights that read a unit count too.
    """
    if order <= 0:
        raise ValueError(f"the order of a norm must be positive, got {order}; 1 and 2 are usual")
    scores = {}
    for group in structure.groups:
        if group.compared:
            scores[group.name] = compared_weight(model, group).float().abs().cpu()
        elif group.members:
            weights = unit_weights(model, group, "out") + (unit_weights(model, group, "in") if read else [])
            norms = [torch.linalg.vector_norm(weight.float(), ord=order, dim=1) for weight in weights]
            scores[group.name] = torch.stack(norms).sum(dim=0).cpu()
    return with_block_influence(scores, model, structure, role, forward=forward)
