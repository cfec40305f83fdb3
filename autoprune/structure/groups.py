"""The nouns of a network's structure: groups of coupled layers, and the geometry of every layer."""

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from autoprune.plan import PruningPlan

IntArray = NDArray[np.int64]
Axis = str  # "out", "in"; of attentions "head", "key", "value" too; "PARAMETER/DIM" of a module's own tensor; of an
# nn.Bilinear "second", of a grouped transposed convolution "group": its outputs, counted within one of its groups
Granularity = Literal["channel", "neuron", "head", "query", "expert", "block", "weight", "n_m", "key_block", "bit"]
LayerKind = Literal["conv", "linear", "norm", "attention", "embedding", "recurrent", "other"]
RoundTo = int | Literal["auto"]
Returns = Literal["input", "input, None", "second", "zeros", "zeros, None"]

AUTOMATIC_STEPS = (8, 4, 2, 1)  # channels or features, which processors compute so many of together
CONFIG, HEADS = "config", "head"  # a module's configuration, and what the entries that groups may lower are called
FEWEST_LEVELS = 4  # that rounding leaves a group with: fewer are no search, and small budgets could not be met


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One axis of one module that loses entries with a group's units.

    Which tensors an axis runs through stands in structure/layer_types.py. A convolution has "out" and "in", a depthwise
    one and a normalisation "out" alone, a recurrent layer "in" and "out" (its hidden units), an nn.MultiheadAttention
    "in", "head" and "out". A parameter or buffer of a module of another type has one axis for each dimension, named
    "gamma/0".
    """

    layer: str
    """The module's qualified name; "" for the network itself, which may hold parameters of its own."""
    axis: Axis
    """Which of the module's axes it is."""
    positions: IntArray
    """[units, entries per unit]: which entries of that axis belong to each unit. One per unit for a plain channel, H·W
    for a linear layer behind a flatten, an offset for a concatenation, one per convolution group for a grouped
    convolution, a head's features for an attention. The inputs of a grouped convolution are counted within one of its
    groups."""
    size: int
    """Entries on that axis in the dense network."""
    filled: float = 0.0
    """What stands in the place of removed entries where they are masked; not 0 for what is divided by."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """A whole number that a module must know: it goes down by `per_unit` for every unit that is removed.

    A number of heads, a written-down width, a query-to-key ratio, a split size, a GroupNorm's groups. Several groups
    may lower the same number.
    """

    module: str
    """The module's qualified name."""
    name: str
    """An attribute, an entry of a list or tuple ("sizes[0]"), or one of a configuration that modules share, of which
    this one then gets a copy ("config.num_attention_heads"); "withheld_inputs" (structure/narrowed_input.py); or a
    number in the module's code ("literal[800]", structure/literal_sizes.py)."""
    per_unit: int
    """Below 0 for what grows with every unit that is removed."""


@dataclass(frozen=True, slots=True)
class Skip:
    """A module that is passed over when a group keeps nothing."""

    module: str
    """The module's qualified name."""
    returns: Returns
    """What stands in its place: "input" is its first argument, "second" its second one, "zeros" are zeros like the
    first; ", None": a pair with None."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One weight matrix [outputs, inputs] of which single weights go, without making it smaller.

    In every row, `size` consecutive inputs are compared with each other: all of them for single weights, M for N:M
    sparsity. A group's unit is a place in that comparison, so k kept units are the k best weights of each comparison.
    """

    layer: str
    """The layer's qualified name."""
    size: int
    """Consecutive inputs that are compared."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """An attention of which every block of queries sees as many blocks of keys as its group keeps units.

    In which order they are kept follows from these fields alone (structure/block_sparse.py), whatever a ranking says.
    """

    module: str
    """The attention's qualified name."""
    tokens: int
    """Of the longest text that costs are counted for."""
    block: int
    """Tokens in a block."""
    causal: bool
    """Whether nobody sees the future."""
    seed: int
    """Of the blocks that are drawn."""


@dataclass(frozen=True, slots=True)
class Routing:
    """A router of experts: experts that are removed are never chosen, whatever their scores would be."""

    module: str
    """The router's qualified name."""
    experts: str
    """The module that it chooses from."""
    top_k: int
    """Experts that every token is handed to."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Layers that must lose the same units together: one decision."""

    name: str
    """The first layer in order of execution that writes its units; "#2", "#3", … follow where it writes others' too."""
    granularity: Granularity
    """What a unit is."""
    units: int
    """How many it has."""
    members: tuple[Member, ...]
    """Axes that become smaller."""
    levels: tuple[int, ...]
    """The numbers of units that may be kept, ascending; the last one keeps all. 0 is among them only for modules that
    can be passed over whole (`skips`)."""
    attributes: tuple[Attribute, ...] = ()
    """What modules must know of the number of units."""
    skips: tuple[Skip, ...] = ()
    """Modules that are passed over where nothing is kept."""
    compared: tuple[Comparison, ...] = ()
    """Matrices of which single weights go."""
    patterns: tuple[Pattern, ...] = ()
    """Attentions that see fewer blocks of keys."""
    routing: Routing | None = None
    """Where the units are experts: who chooses among them."""
    coded: tuple[str, ...] = ()
    """Layers whose weights are written as codes of as many bits as units are kept; all of them: values as they are."""
    exact: bool = True
    """Whether the network without units is the one with masked units. It is not where a layer normalises over the units
    (LayerNorm): its statistics run over fewer. Such groups are offered with structure.inexact=true."""
    parts: tuple["Group", ...] = ()
    """Of a group that gives all blocks one level (structure.uniform): those of the blocks, in the network's order."""

    @property
    def in_given_order(self) -> bool:
        """Whether units stand in order of importance by what they are, whatever a criterion says of them."""
        return bool(self.patterns or self.coded)

    def touches(self, layer: str) -> bool:
        """Whether anything of the layer goes with the group's units."""
        named = {member.layer for member in self.members} | {matrix.layer for matrix in self.compared}
        named |= {pattern.module for pattern in self.patterns} | set(self.coded)
        return layer in named or any(holds(skip.module, layer) for skip in self.skips)


@dataclass(frozen=True, slots=True)
class Layer:
    """The dense geometry of one layer that runs.

    Of the types without a product of outputs and inputs ("recurrent", "other") it tells that they are there, how wide
    they are and how often they run; what they cost is found by looking at narrower copies.
    """

    name: str
    """The module's qualified name."""
    kind: LayerKind
    """"attention" stands for the scores and the mixing between a transformer's projections: its outputs are all heads'
    features, its inputs 2 · keys. "other": a module with parameters of its own, nn.MultiheadAttention among them."""
    outputs: int
    """Channels, features or hidden units."""
    inputs: int
    """Per convolution group; of an embedding, its rows."""
    kernel: int
    """Elements, e.g. 9 for 3×3; 1 for a linear layer."""
    positions: int
    """Output positions for one sample, H·W (1 for a vector), over all the times that the layer runs; of a transposed
    convolution the input positions, which are what its MACs are counted by."""
    stride: int
    """Of a convolution; 1 for all others."""
    bias: bool
    """Whether it has one."""
    depthwise: bool
    """Whether it is a convolution with one input channel for each output."""
    statistics: int = 0
    """Running statistics per output (BatchNorm has two)."""


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """What can go together in one network, and the geometry of all its layers, in order of execution."""

    groups: tuple[Group, ...]
    """One decision each."""
    layers: tuple[Layer, ...]
    """Every layer that runs."""
    unprunable: dict[str, str] = field(default_factory=dict)
    """Layer → the reason why its outputs stay whole."""
    other_params: int = 0
    """Parameters that belong to none of `layers`."""
    stages: tuple[str, ...] = ()
    """Modules that run one after the other, each on the last one's output alone (a transformer's blocks); may be
    empty."""

    def layers_of(self, group: Group) -> list[Layer]:
        """The layers that the group's units are taken from, in order of execution."""
        return [layer for layer in self.layers if group.touches(layer.name)]

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
        """Returns the plan that keeps kept[g] units of group g.

        Args:
            kept: Whole numbers [groups], each from 0 to the group's units.

        Raises:
            ValueError: They are no whole numbers, not one for each group, or outside of what groups have.
        """
        given = np.asarray(kept)
        if given.dtype.kind not in "iu" or given.shape != (len(self.groups),):
            raise ValueError(
                f"a plan keeps a whole number of units for each of the {len(self.groups)} groups, [groups]; got "
                f"{given.dtype} of shape {list(given.shape)}"
            )
        return PruningPlan(self.names, tuple(self.units.tolist()), tuple(given.tolist()))

    @property
    def dense(self) -> PruningPlan:
        return self.plan(self.units)


def levels_of(units: int, *, round_to: RoundTo, min_units: int, each: int = 1) -> tuple[int, ...]:
    """The numbers of units that may be kept: all, and from `min_units` on those that fill multiples of `round_to`.

    Args:
        units: Of the group, at least 1.
        round_to: Entries, at least 1; "auto": `automatic_step`, or 1 where `min_units` leaves no choice of it.
        min_units: The fewest units that are kept, at least 1.
        each: Entries of a layer that a unit fills.
    """
    entries = automatic_step(units, each=each) if round_to == "auto" else round_to
    step = entries // math.gcd(entries, each)
    first = max(step, math.ceil(min_units / step) * step)
    if round_to == "auto" and first >= units:
        step, first = 1, min_units
    return tuple(sorted({*range(first, units, step), units}))


def automatic_step(units: int, *, each: int = 1) -> int:
    """The largest of AUTOMATIC_STEPS that leaves a group a choice of FEWEST_LEVELS numbers of units, 1 where none does.

    >>> [automatic_step(units) for units in (64, 32, 24, 12, 6)]
    [8, 8, 4, 2, 1]

    Args:
        units: Of the group, at least 1.
        each: Entries of a layer that a unit fills, at least 1.
    """
    steps = (step for step in AUTOMATIC_STEPS if units // (step // math.gcd(step, each)) >= FEWEST_LEVELS)
    return next(steps, 1)


def holds(module: str, layer: str) -> bool:
    """Whether the layer is the module of that name, or in it.

    Args:
        module: A qualified name, such as layer1.0.
        layer: A qualified name, such as layer1.0.conv1.
    """
    return layer == module or layer.startswith(f"{module}.")


def apart(structure: Structure) -> list[IntArray]:
    """Plans in one of which at least, of every two groups of one layer's outputs, one is cut and the other is not.

    Plans that cut both alike don't show that they are coupled: halves of a chunk, say, which have to stay equal.

    Args:
        structure: The network's groups and layers.
    """
    first = [(g.members[0].layer, g.members[0].axis) if g.members else (g.name, "") for g in structure.groups]
    ranks = np.array([first[:index].count(key) for index, key in enumerate(first)], np.int64)
    digits = range(int(ranks.max(initial=0)).bit_length())
    return [np.where(ranks >> digit & 1, structure.floor, structure.units) for digit in digits]
