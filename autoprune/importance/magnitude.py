"""The norm of a unit's weights (Li et al., arXiv 1608.08710)."""

import torch
from torch import nn

from autoprune.importance.criterion import Scores
from autoprune.importance.units import unit_weights
from autoprune.structure.groups import Structure
from autoprune.task.task import Loss, Role


@torch.no_grad()
def magnitude(
    model: nn.Module,
    structure: Structure,
    role: Role,
    *,
    loss: Loss,
    generator: torch.Generator,
    order: float,
    read: bool,
) -> Scores:
    """Scores a unit by the norm of the weights that write it, added up over its group's layers.

    order: of the norm, 1 or 2. read: also the weights that read the unit.
    """
    if order <= 0:
        raise ValueError(f"the order of a norm must be positive, got {order}; 1 and 2 are usual")
    scores = {}
    for group in structure.groups:
        weights = unit_weights(model, group, "out") + (unit_weights(model, group, "in") if read else [])
        norms = [torch.linalg.vector_norm(weight.float(), ord=order, dim=1) for weight in weights]
        scores[group.name] = torch.stack(norms).sum(dim=0).cpu()
    return scores
