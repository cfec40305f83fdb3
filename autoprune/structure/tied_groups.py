"""Groups that are made one, or whose units are, because they can only go together."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from autoprune.structure.groups import Group, Member


def partners(group: Group, others: Sequence[Group]) -> Iterator[list[Group]]:
    """Groups that might have to lose units with a group: all that share axes with it, each, and each of its layers'.

    Args:
        group: That cannot go alone.
        others: All other groups.
    """
    axes = {(m.layer, m.axis) for m in group.members}
    layers = {m.layer for m in group.members}
    same = [g for g in others if g.units == group.units and axes & {(m.layer, m.axis) for m in g.members}]
    if len(same) > 1:
        yield same
    yield from ([partner] for partner in same)
    near = [g for g in others if g not in same and g.units % group.units == 0 and layers & {m.layer for m in g.members}]
    yield from ([partner] for partner in near)
    while True:  # all that hang together, however many layers are between
        reached = layers | {m.layer for g in (*same, *near) for m in g.members}
        more = [
            g
            for g in others
            if g not in same and g not in near and g.units % group.units == 0 and reached & {m.layer for m in g.members}
        ]
        if len(same) + len(near) > 1 and near:
            yield [*same, *near]
        if not more:
            return
        near += more


def zipped(group: Group, others: Sequence[Group]) -> Group:
    """One group whose unit i is unit i of each; of one that has n times as many units, its units n·i … n·i + n − 1.

    Args:
        group: Whose name and units it has.
        others: With a multiple of its units each.
    """
    entries: dict[tuple[str, str], list[Member]] = {}
    attributes = list(group.attributes)
    for part in (group, *others):
        times = part.units // group.units
        for member in part.members:
            own = replace(member, positions=member.positions.reshape(group.units, -1))
            entries.setdefault((member.layer, member.axis), []).append(own)
        if part is not group:
            attributes += [replace(number, per_unit=number.per_unit * times) for number in part.attributes]
    members = tuple(
        replace(same[0], positions=np.concatenate([m.positions for m in same], axis=1)) for same in entries.values()
    )
    exact = all(part.exact for part in (group, *others))
    return replace(group, members=members, attributes=tuple(attributes), exact=exact)


def tied(group: Group, parts: int) -> Group:
    """The group with units i, i + n, i + 2n, … made one.

    Args:
        group: The group.
        parts: How many units are made one, a divisor of its units.
    """
    units = group.units // parts
    members = tuple(
        replace(m, positions=m.positions.reshape(parts, units, -1).transpose(1, 0, 2).reshape(units, -1))
        for m in group.members
    )
    attributes = tuple(replace(a, per_unit=a.per_unit * parts) for a in group.attributes)
    return replace(group, units=units, members=members, attributes=attributes)
