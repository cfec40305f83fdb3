"""Distance to the other filters (FPGM, geometric median; He et al., arXiv 1811.00250)."""

import torch
from torch import Tensor

from autoprune.importance.criterion import CriterionInputs
from autoprune.importance.unit_weights import refuse_single_weights, unit_weights


@torch.no_grad()
def fpgm(given: CriterionInputs) -> dict[str, Tensor]:
    """Scores a unit by the sum of Euclidean distances from its filter to its group's others, over the group's layers.

    The units nearest to the geometric median are those that the others can replace.

    Args:
        given: The network, its groups and the calibration samples.

    Raises:
        ValueError: Units are single weights.
    """
    refuse_single_weights(given.structure, criterion="fpgm", reason="it compares whole filters")
    scores = {}
    for group in given.structure.groups:
        if group.members:
            filters = [weight.float() for weight in unit_weights(given.model, group, "out")]
            # distances by matrix products would lose the digits in which near copies differ
            distances = [torch.cdist(f, f, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=1) for f in filters]
            scores[group.name] = torch.stack(distances).sum(dim=0).cpu()
    return scores
