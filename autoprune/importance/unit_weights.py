"""What belongs to a unit: its share of a tensor, the layers that write it and the layers that read it."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from autoprune.structure.groups import Axis, Group, Member, Structure

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def unit_weights(model: nn.Module, group: Group, axis: Axis) -> list[Tensor]:
    """The weights that write ("out") or read ("in") the group's units, for every layer that does [units, entries].

    Layers are convolutions, depthwise ones among the writers, and linear ones.
    """
    layers = [(model.get_submodule(member.layer), member) for member in group.members if member.axis == axis]
    dim = 0 if axis == "out" else 1
    return [
        per_unit(layer.get_parameter("weight"), member, dim=dim)
        for layer, member in layers
        if isinstance(layer, WEIGHTED)
    ]


def readers(model: nn.Module, group: Group) -> Iterator[tuple[nn.Module, Member]]:
    """The convolutions and linear layers that the units are inputs of; to zero these weights is to remove the units."""
    for member in group.members:
        if member.axis == "in":
            yield model.get_submodule(member.layer), member


def per_unit(tensor: Tensor, member: Member, *, dim: int) -> Tensor:
    """Each unit's share of a tensor that `member` cuts along `dim`, [units, entries]."""
    positions = torch.from_numpy(member.positions).to(tensor.device)
    return tensor.movedim(dim, 0)[positions].flatten(1)


def compared_weight(model: nn.Module, group: Group) -> Tensor:
    """The matrix [outputs, inputs] of which the group's single weights go."""
    return model.get_submodule(group.compared[0].layer).get_parameter("weight")


def refuse_single_weights(structure: Structure, *, criterion: str, reason: str) -> None:
    """Raises ValueError where a group compares single weights, which the criterion cannot score."""
    groups = [group.name for group in structure.groups if group.compared]
    if groups:
        raise ValueError(
            f"{criterion} cannot score single weights, as {reason}, and {len(groups)} groups compare some (the first "
            f"is {groups[0]!r}); use wanda, sparse_gpt, taylor or magnitude"
        )
