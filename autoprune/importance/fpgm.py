"""Distance to the other filters (FPGM, geometric median; He et al., arXiv 1811.00250)."""

import torch
from torch import nn

from autoprune.importance.criterion import Scores
from autoprune.importance.units import unit_weights
from autoprune.structure.groups import Structure
from autoprune.task.task import Loss, Role


@torch.no_grad()
def fpgm(model: nn.Module, structure: Structure, role: Role, *, loss: Loss, generator: torch.Generator) -> Scores:
    """Scores a unit by the sum of Euclidean distances from its filter to its group's others, over the group's layers.

    The units nearest to the geometric median are those that the others can replace.
    """
    scores = {}
    for group in structure.groups:
        filters = [weight.float() for weight in unit_weights(model, group, "out")]
        # distances by matrix products would lose the digits in which near copies differ
        distances = [torch.cdist(f, f, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=1) for f in filters]
        scores[group.name] = torch.stack(distances).sum(dim=0).cpu()
    return scores
