"""One level for all blocks of a transformer: groups of a kind merged into one, whose unit is one of each block.

Engines that read one configuration for all blocks need that, and so does the stock layout of an export.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from autoprune.structure.groups import Granularity, Group, Member, Structure

UniformKind = Literal["heads", "queries", "neurons"]
GRANULARITIES: Mapping[UniformKind, Granularity] = {"heads": "head", "queries": "query", "neurons": "neuron"}


def merged(structure: Structure, kinds: Sequence[UniformKind]) -> Structure:
    """The structure in which all groups of each of these kinds are one; it stands where the first of them stood.

    Args:
        structure: Of a transformer, with groups of these kinds in every block.
        kinds: Of `heads`, `queries` and `neurons`.

    Returns:
        The structure; which groups a merged one is made of stands in its `parts`.

    Raises:
        ValueError: The structure has no groups of a kind, or blocks that can't be equal.
    """
    unknown = [kind for kind in kinds if kind not in get_args(UniformKind)]
    if unknown or len(set(kinds)) < len(kinds):
        raise ValueError(f"structure.uniform lists each of {list(GRANULARITIES)} at most once, got {list(kinds)}")
    for kind in kinds:
        parts = tuple(group for group in structure.groups if group.granularity == GRANULARITIES[kind])
        _check(structure, kind, parts)
        whole = _whole(parts)
        groups = tuple(
            whole if group is parts[0] else group
            for group in structure.groups
            if group is parts[0] or group not in parts
        )
        structure = replace(structure, groups=groups)
    return structure


def separate(structure: Structure) -> Structure:
    """The structure with a group of its own for every block again, as criteria score them.

    Args:
        structure: What `merged` returned; any other stays as it is.
    """
    groups = tuple(part for group in structure.groups for part in (group.parts or (group,)))
    return replace(structure, groups=groups)


def in_order(
    structure: Structure, scores: Mapping[str, Tensor], ranking: Mapping[str, Tensor]
) -> tuple[Structure, dict[str, Tensor], dict[str, Tensor]]:
    """The merged structure whose units are ordered within each block, with its scores and its ranking.

    Unit k is the k-th best unit of every block, and its score the mean of theirs, each relative to its block's best.

    Args:
        structure: What `merged` returned; any other is left as it is.
        scores: Group of `separate(structure)` → the scores of its units.
        ranking: The same groups → their units, most important first.
    """
    groups, values, order = [], {}, {}
    for group in structure.groups:
        if not group.parts:
            groups.append(group)
            values[group.name], order[group.name] = scores[group.name], ranking[group.name]
            continue
        members = [
            replace(member, positions=member.positions[ranking[part.name].numpy()])
            for part in group.parts
            for member in part.members
        ]
        own = [scores[part.name][ranking[part.name]].float() for part in group.parts]
        groups.append(replace(group, members=tuple(members)))
        values[group.name] = torch.stack([s / s.abs().max().clamp(min=1e-30) for s in own]).mean(dim=0)
        order[group.name] = torch.arange(group.units)
    return replace(structure, groups=tuple(groups)), values, order


def _check(structure: Structure, kind: UniformKind, parts: Sequence[Group]) -> None:
    if len(parts) < 2 or not structure.stages:
        raise ValueError(
            f"structure.uniform={kind} gives all blocks of a transformer one level of {kind}, and here "
            f"{len(parts)} groups are of that kind; name it in structure.prune, or leave it out"
        )
    blocks = [next((s for s in structure.stages if part.name.startswith(f"{s}.")), "") for part in parts]
    lacking = [stage for stage in structure.stages if stage not in blocks]
    if lacking:
        raise ValueError(
            f"structure.uniform={kind} needs every block to lose {kind}, but those of {lacking[0]} stay whole "
            "(task.keep); leave one of the two out"
        )
    sizes = sorted({part.units for part in parts})
    if len(sizes) > 1:
        raise ValueError(
            f"structure.uniform={kind} gives all blocks the same number of {kind}, but they have "
            f"{sizes[0]} to {sizes[-1]}; leave it out"
        )


def _whole(parts: Sequence[Group]) -> Group:
    first = parts[0]
    shared = set(first.levels).intersection(*(part.levels for part in parts))
    members: tuple[Member, ...] = tuple(member for part in parts for member in part.members)
    return replace(
        first,
        name=_name(parts),
        members=members,
        levels=tuple(sorted(shared)),
        attributes=tuple(attribute for part in parts for attribute in part.attributes),
        parts=tuple(parts),
    )


def _name(parts: Sequence[Group]) -> str:
    """The blocks' names with a star where they differ: model.layers.*.mlp."""
    words = [part.name.split(".") for part in parts]
    return ".".join(word[0] if len(set(word)) == 1 else "*" for word in zip(*words, strict=True))
