"""Chance, the control that every criterion has to beat."""

import torch
from torch import Tensor

from autoprune.importance.criterion import CriterionInputs
from autoprune.importance.unit_weights import compared_weight


def random(given: CriterionInputs) -> dict[str, Tensor]:
    """Scores units, single weights and modules uniformly at random in [0, 1), in the network's order of groups.

    Args:
        given: The network and its groups; the generator draws the scores.
    """
    shapes = {
        group.name: compared_weight(given.model, group).shape if group.compared else (group.units,)
        for group in given.structure.groups
        if not group.in_given_order
    }
    return {name: torch.rand(shape, generator=given.generator) for name, shape in shapes.items()}
