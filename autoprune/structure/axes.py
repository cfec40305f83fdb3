"""Which entries of a layer's axis stay, for any numbers of kept units, once units are in order of importance."""

import torch
from torch import Tensor

from autoprune.structure.edit import Ranking
from autoprune.structure.groups import Axis, IntArray, Structure

Kept = tuple[int, ...]  # units of each group


class AxisSlices:
    """Which entries of one axis stay, for any numbers of kept units."""

    def __init__(self, structure: Structure, layer: str, axis: Axis) -> None:
        self.layer, self.axis = layer, axis
        self.members: list[tuple[int, IntArray]] = [
            (index, member.positions)
            for index, group in enumerate(structure.groups)
            for member in group.members
            if (member.layer, member.axis) == (layer, axis)
        ]
        self.size = next(m.size for g in structure.groups for m in g.members if (m.layer, m.axis) == (layer, axis))
        self._names = structure.names
        (self.group, positions), *others = self.members
        self.per_unit = positions.shape[1]
        # the common case: one group fills the whole axis in unit order, so that keeping is a leading slice
        self.leading = not others and bool(
            (positions.ravel() == range(self.size)).all() if positions.size == self.size else False
        )
        self._positions = [(index, torch.from_numpy(positions)) for index, positions in self.members]
        self._cache: dict[Kept, Tensor] = {}

    def order(self, ranking: Ranking) -> Tensor:
        """[size]: the dense entry that comes to stand at each place."""
        order = torch.arange(self.size)
        for index, positions in self._positions:  # groups that share entries permute different coordinates of them
            order[positions.flatten()] = order[positions[ranking[self._names[index]].cpu()].flatten()]
        return order

    def entries(self, kept: Kept) -> Tensor:
        """The places that stay where they are not a leading slice (concatenations, grouped convolutions)."""
        key = tuple(kept[index] for index, _ in self.members)
        if key not in self._cache:
            stays = torch.ones(self.size, dtype=torch.bool)
            for index, positions in self._positions:
                stays[positions[kept[index] :].flatten()] = False
            self._cache[key] = stays.nonzero().flatten()
        return self._cache[key]


def touched_axes(structure: Structure) -> list[tuple[str, Axis]]:
    """The axes that some group cuts. An attention has no tensors of its own to cut."""
    mixing = {layer.name for layer in structure.layers if layer.kind == "attention"}
    axes = dict.fromkeys((m.layer, m.axis) for group in structure.groups for m in group.members)
    return [(layer, axis) for layer, axis in axes if layer not in mixing]
