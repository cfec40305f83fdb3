"""Chance, the control that every criterion has to beat."""

import torch
from torch import Tensor, nn

from autoprune.importance.block_influence import given_order
from autoprune.importance.criterion import Scores
from autoprune.importance.unit_weights import compared_weight
from autoprune.structure.groups import Group, Structure
from autoprune.task.task import Forward, Loss, Role


def random(
    model: nn.Module,
    structure: Structure,
    role: Role,
    *,
    loss: Loss,
    forward: Forward,
    generator: torch.Generator,
) -> Scores:
    """Scores units, and single weights, uniformly at random in [0, 1), in the network's order of groups.

    Key blocks have the order that their pattern gives them, which is a random one.

    Args:
        model: The dense network, in eval mode.
        structure: The network's groups and layers.
        role: The samples that are read.
        loss: (outputs, targets) → a scalar; used by criteria that need gradients.
        forward: (network, inputs) → outputs: how the network is called.
        generator: Draws all that is random here.
    """

    def drawn(group: Group) -> Tensor:
        if group.patterns or group.coded:
            return given_order(group)
        shape = compared_weight(model, group).shape if group.compared else (group.units,)
        return torch.rand(shape, generator=generator)

    return {group.name: drawn(group) for group in structure.groups}
