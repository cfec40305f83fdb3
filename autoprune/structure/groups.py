"""The nouns of a network's structure: groups of coupled layers, and the geometry of every layer."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autoprune.plan import PruningPlan

IntArray = NDArray[np.int64]
Axis = Literal["out", "in"]


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One axis of one layer that loses entries with a group's units.

    positions [units, entries per unit]: which entries of that axis belong to each unit. One entry per unit for a plain
    channel, H·W for a linear layer behind a flatten, an offset for a concatenation, one per convolution group for a
    grouped convolution. The inputs of a grouped convolution are counted within one of its groups.
    """

    layer: str
    axis: Axis
    positions: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Layers that must lose the same units together: one decision.

    levels: the numbers of units that may be kept, ascending; the last one keeps all.
    """

    name: str
    granularity: str
    units: int
    members: tuple[Member, ...]
    levels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """The dense geometry of one layer.

    kind: "conv", "linear" or "norm". outputs: channels or features. inputs: per convolution group.
    kernel: elements, e.g. 9 for 3×3 (1 for linear). positions: output positions for one sample, H·W (1 for a vector),
    over all the times that the layer runs.
    statistics: running statistics per output (BatchNorm has two).
    """

    name: str
    kind: Literal["conv", "linear", "norm"]
    outputs: int
    inputs: int
    kernel: int
    positions: int
    stride: int
    bias: bool
    depthwise: bool
    statistics: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """What can go together in one network, and the geometry of all its layers, in order of execution.

    unprunable: layer → the reason why its outputs stay whole.
    other_params: parameters that belong to none of `layers`.
    """

    groups: tuple[Group, ...]
    layers: tuple[Layer, ...]
    unprunable: dict[str, str] = field(default_factory=dict)
    other_params: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(group.name for group in self.groups)

    @property
    def units(self) -> IntArray:
        """[groups]"""
        return np.array([group.units for group in self.groups], np.int64)

    @property
    def floor(self) -> IntArray:
        """The fewest units each group may keep, [groups]."""
        return np.array([group.levels[0] for group in self.groups], np.int64)

    def plan(self, kept: IntArray) -> PruningPlan:
        """The plan that keeps kept[g] units of group g."""
        return PruningPlan(self.names, tuple(self.units.tolist()), tuple(np.asarray(kept).tolist()))

    @property
    def dense(self) -> PruningPlan:
        return self.plan(self.units)
