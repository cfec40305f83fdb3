"""Chance, the control that every criterion has to beat."""

import torch
from torch import nn

from autoprune.importance.criterion import Scores
from autoprune.structure.groups import Structure
from autoprune.task.task import Loss, Role


def random(model: nn.Module, structure: Structure, role: Role, *, loss: Loss, generator: torch.Generator) -> Scores:
    """Scores units uniformly at random in [0, 1), in the network's order of groups."""
    return {group.name: torch.rand(group.units, generator=generator) for group in structure.groups}
