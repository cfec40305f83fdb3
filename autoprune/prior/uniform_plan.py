"""The same density everywhere, filled to its budget: left-over units go where they fit.

What is whole or gone (a block that can be passed over) has no density of its own. Of every kind of such groups the same
share stays as of all units, and those that go lie evenly spaced over the network's depth. So do matrices that are dense
or N:M.
"""

from collections.abc import Iterator

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.plan import PruningPlan
from autoprune.structure.groups import Group, Structure

TIE = 1e-6  # what of a density decides between groups that would else be equal


def uniform_plan(structure: Structure, projector: Projector) -> PruningPlan:
    return structure.plan(projector.project(uniform_target(structure)))


def uniform_target(structure: Structure) -> FloatArray:
    """The target densities that are projected onto the uniform plan, [groups]: 1 for all but depth groups.

    Of n depth groups of one kind, the r-th to be kept has the target n / r. At scale s, where s of every other group's
    units are kept, so are those with s · n / r ≥ 1: the first s · n.
    """
    target = np.ones(len(structure.groups))
    kinds: dict[tuple[str, ...], list[int]] = {}
    two_ways: list[int] = []
    for index, group in enumerate(structure.groups):
        if is_depth(group):
            kinds.setdefault(tuple(skip.returns for skip in group.skips), []).append(index)
        elif group.granularity == "n_m":  # all have the same target, and the evenly spaced ones are filled up first
            two_ways.append(index)
    for rank, index in enumerate(evenly_spaced(len(two_ways))):
        target[two_ways[index]] -= TIE * rank
    for members in kinds.values():
        removal = [members[index] for index in evenly_spaced(len(members))]
        target[removal] = len(members) / np.arange(len(members), 0, -1)  # who goes first is the last to be kept
    return target


def is_depth(group: Group) -> bool:
    """The group is one module, or several, that are whole or passed over."""
    return bool(group.skips) and group.units == 1


def evenly_spaced(count: int) -> Iterator[int]:
    """0 … count − 1 in van der Corput's order: however many are taken, they lie evenly spaced. The middle is first."""
    taken, at = set[int](), 0
    while len(taken) < count:
        at += 1
        index = int(_van_der_corput(at) * count)
        if index not in taken:
            taken.add(index)
            yield index


def _van_der_corput(index: int) -> float:
    """The index's binary digits mirrored at the point: 1/2, 1/4, 3/4, 1/8, 5/8 … from index 1 on."""
    return int(f"{index:b}"[::-1], 2) / (1 << index.bit_length())
