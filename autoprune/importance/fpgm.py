"""Distance to the other filters (FPGM, geometric median; He et al., arXiv 1811.00250)."""

import torch
from torch import nn

from autoprune.importance.block_influence import with_block_influence
from autoprune.importance.criterion import Scores
from autoprune.importance.unit_weights import refuse_single_weights, unit_weights
from autoprune.structure.groups import Structure
from autoprune.task.task import Forward, Loss, Role


@torch.no_grad()
def fpgm(
    model: nn.Module,
    structure: Structure,
    role: Role,
    *,
    loss: Loss,
    forward: Forward,
    generator: torch.Generator,
) -> Scores:
    """Scores a unit by the sum of Euclidean distances from its filter to its group's others, over the group's layers.

    The units nearest to the geometric median are those that the others can replace. Modules that can be passed over
    are scored by block influence.

    Args:
        model: The dense network, in eval mode.
        structure: The network's groups and layers.
        role: Not read.
        loss: Not read.
        forward: Not read.
        generator: Not read.

    Raises:
        ValueError: Units are single weights.
    """
    refuse_single_weights(structure, criterion="fpgm", reason="it compares whole filters")
    scores = {}
    for group in structure.groups:
        if group.members:
            filters = [weight.float() for weight in unit_weights(model, group, "out")]
            # distances by matrix products would lose the digits in which near copies differ
            distances = [torch.cdist(f, f, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=1) for f in filters]
            scores[group.name] = torch.stack(distances).sum(dim=0).cpu()
    return with_block_influence(scores, model, structure, role, forward=forward)
