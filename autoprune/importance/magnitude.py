"""The norm of a unit's weights (Li et al., arXiv 1608.08710)."""

import torch
from torch import Tensor

from autoprune.importance.criterion import CriterionInputs
from autoprune.importance.unit_weights import compared_weight, unit_weights
from autoprune.ranges import Positive, checked


@checked
@torch.no_grad()
def magnitude(given: CriterionInputs, *, order: Positive, read: bool) -> dict[str, Tensor]:
    """Scores a unit by the norm of the weights that write it, added up over its group's layers; a weight by its size.

    Args:
        given: The network, its groups and the calibration samples.
        order: Of the norm: 1 or 2 are usual.
        read: Whether the weights that read a unit count too.
    """
    scores = {}
    for group in given.structure.groups:
        if group.compared:
            scores[group.name] = compared_weight(given.model, group).float().abs().cpu()
        elif group.members:
            weights = unit_weights(given.model, group, "out")
            weights += unit_weights(given.model, group, "in") if read else []
            norms = [torch.linalg.vector_norm(weight.float(), ord=order, dim=1) for weight in weights]
            scores[group.name] = torch.stack(norms).sum(dim=0).cpu()
    return scores
