"""Bits as a decision: a group for every matrix that others take from, whose units are the bits of its weights' codes.

It stands behind the first group that takes from the matrix, so that the two decisions about it follow each other.
"""

from collections import Counter
from dataclasses import replace

from torch import nn

from autoprune.plan import PruningPlan
from autoprune.structure.groups import Group, Structure
from autoprune.structure.layer_types import CONVOLUTIONS

RAW_BITS = 32
"""A group's units: of a value as it is, which is what the dense network has."""
MOST_BITS = 8
"""Of a code."""


def with_bits(structure: Structure, model: nn.Module, bits: tuple[int, ...]) -> Structure:
    """Returns the structure with a group "NAME bits" for every convolution and linear layer that a group takes from.

    >>> with_bits(structure, model, (2, 4)).groups[1].levels  # doctest: +SKIP
    (2, 4, 32)

    Args:
        structure: Groups of units or weights.
        model: The dense network. Layers that share a weight have no such group.
        bits: That a code may have, each 1 to 8.

    Raises:
        ValueError: Bits are none, out of range or named twice, or there is no such layer.
    """
    if not bits or len(set(bits)) < len(bits) or not all(1 <= each <= MOST_BITS for each in bits):
        raise ValueError(f"structure.bits names different numbers of bits, each 1 to {MOST_BITS}; got {list(bits)}")
    levels, owners = (
        (*sorted(bits), RAW_BITS),
        Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False)),
    )
    left, groups = dict.fromkeys(layer.name for layer in structure.layers), list[Group]()
    for group in structure.groups:
        groups.append(group)
        taken = {member.layer for member in group.members} | {matrix.layer for matrix in group.compared}
        for name in [name for name in left if name in taken]:
            del left[name]
            layer = model.get_submodule(name) if name else model
            weight = layer._parameters.get("weight")
            if isinstance(layer, (*CONVOLUTIONS, nn.Linear)) and weight is not None and owners[id(weight)] == 1:
                groups.append(Group(f"{name} bits", "bit", RAW_BITS, (), levels, coded=(name,)))
    if len(groups) == len(structure.groups):
        raise ValueError("structure.bits has no effect: no group takes from a convolution or linear layer of its own")
    return replace(structure, groups=tuple(groups))


def bits_of(structure: Structure, plan: PruningPlan) -> dict[str, int]:
    """Returns layer → bits of its weights' codes, for those that have codes in the plan.

    Args:
        structure: The network's groups and layers.
        plan: Units that each group keeps.
    """
    pairs = zip(structure.groups, plan.kept, strict=True)
    return {name: kept for group, kept in pairs if kept < RAW_BITS for name in group.coded}


def is_coded(structure: Structure) -> bool:
    """Returns whether plans say how many bits codes have.

    Args:
        structure: The network's groups and layers.
    """
    return any(group.coded for group in structure.groups)
