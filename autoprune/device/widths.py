"""How wide every piece of a network is under every plan."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.device.fused_layer import FusedLayer
from autoprune.device.layer_instances import LayerInstance, layer_instances
from autoprune.plan import PruningPlan
from autoprune.structure.edit import shrink
from autoprune.structure.groups import IntArray, Structure
from autoprune.task.task import Forward, plain_forward

Range = tuple[int, int]
TRACED = ("channel", "neuron")  # granularities whose units make layers narrower, each group on its own
CHECKED = 2  # random plans on which the widths that were found must be right


@dataclass(frozen=True, slots=True, eq=False)
class Widths:
    """A network's pieces under all plans: their widths are affine in the units that groups keep.

    pieces: distinct ones. index [cuts]: which of them each cut is. inputs, outputs [cuts, groups + 1]: per kept unit,
    the last column is constant. counts [cuts]: how often the same piece runs at the same widths. most [pieces]: the
    widest inputs and outputs of each. left_out: operators that are in no piece, with how often they run.
    """

    pieces: tuple[FusedLayer, ...]
    index: IntArray
    inputs: IntArray
    outputs: IntArray
    counts: IntArray
    ranges: tuple[tuple[Range, Range], ...]
    left_out: Mapping[str, int]

    def of(self, kept: IntArray) -> tuple[IntArray, IntArray]:
        """Input and output channels of every cut: kept [..., groups] → two of [..., cuts]."""
        units = np.asarray(kept, np.float64)  # products of floats are fast, and exact below 2^53
        inputs, outputs = (units @ table[:, :-1].T + table[:, -1] for table in (self.inputs, self.outputs))
        return inputs.astype(np.int64), outputs.astype(np.int64)


def widths_of(
    network: nn.Module, structure: Structure, example_input: Tensor, *, forward: Forward = plain_forward
) -> Widths:
    """The network's pieces, from its forward pass and those of networks that lack one level of one group.

    Raises ValueError for what is not made narrower by plans, as by most kinds of groups of a transformer, and where a
    forward pass depends on the widths in other ways.
    """
    strange = sorted({group.granularity for group in structure.groups} - set(TRACED))
    if strange:
        raise ValueError(
            f"latency is measured for networks that lose channels or neurons, and this one's groups lose {strange}; "
            "give it another budget, such as macs:0.5 or bytes:0.5, or an analytical device"
        )
    seen = _Networks(network, structure, example_input, forward)
    dense, left_out = seen.cuts(structure.dense)
    sizes = np.array([[c.inputs, c.outputs] for c in dense], np.int64)  # [cuts, 2]
    slopes = np.zeros((len(structure.groups), len(dense), 2), np.int64)
    for number, group in enumerate(structure.groups):
        kept = structure.units
        kept[number] = group.levels[-2]
        change = sizes - seen.sizes(kept, like=dense)
        slopes[number] = change // (group.units - group.levels[-2])
    constant = sizes - np.einsum("g,gcs->cs", structure.units, slopes)
    tables = [np.column_stack([slopes[:, :, side].T, constant[:, side]]) for side in (0, 1)]
    found = _merged(dense, tables[0], tables[1], Counter(left_out))
    _check(seen, structure, dense, tables)
    return found


class _Networks:
    """The forward passes of pruned copies."""

    def __init__(self, network: nn.Module, structure: Structure, example_input: Tensor, forward: Forward) -> None:
        self._network, self._structure = network, structure
        self._example, self._forward = example_input, forward
        self._ranking = {group.name: torch.arange(group.units) for group in structure.groups}

    def cuts(self, plan: PruningPlan) -> tuple[list[LayerInstance], list[str]]:
        small = shrink(self._network, self._structure, plan, self._ranking)
        return layer_instances(small, self._example, forward=self._forward)

    def sizes(self, kept: IntArray, *, like: list[LayerInstance]) -> IntArray:
        """[cuts, 2]. Raises ValueError where the pieces are others."""
        found, _ = self.cuts(self._structure.plan(kept))
        found = [
            *(_narrowest(its, as_one=dense.piece) for its, dense in zip(found, like, strict=False)),
            *found[len(like) :],
        ]
        if [c.piece for c in found] != [c.piece for c in like]:
            raise ValueError(
                "the network computes other operators when it is narrower, so pieces of it cannot be timed alone; "
                "give another budget, such as macs:0.5"
            )
        return np.array([[c.inputs, c.outputs] for c in found], np.int64)


def _narrowest(found: LayerInstance, *, as_one: FusedLayer) -> LayerInstance:
    """A depthwise convolution of one channel looks like a plain one, and a grouped one of one each like a depthwise."""
    if as_one.kind == "depthwise" and found.piece.kind == "conv" and found.piece.groups * found.outputs == 1:
        return LayerInstance(replace(found.piece, kind="depthwise"), 1, 1)
    if as_one.kind == "conv" and found.piece.kind == "depthwise" and found.outputs == as_one.groups:
        return LayerInstance(replace(found.piece, kind="conv", groups=as_one.groups), 1, 1)
    return found


def _check(seen: _Networks, structure: Structure, dense: list[LayerInstance], tables: list[IntArray]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(CHECKED):
        kept = np.array([rng.choice(group.levels) for group in structure.groups], np.int64)
        expected = np.stack([table[:, :-1] @ kept + table[:, -1] for table in tables], axis=1)
        wrong = np.flatnonzero((expected != seen.sizes(kept, like=dense)).any(axis=1))
        if len(wrong):
            raise ValueError(
                f"the width of {dense[wrong[0]].piece} is not affine in the units that groups keep, so latency tables "
                "do not apply; give another budget, such as macs:0.5"
            )


def _merged(dense: list[LayerInstance], inputs: IntArray, outputs: IntArray, left_out: Counter[str]) -> Widths:
    """Cuts of the same piece at the same widths become one."""
    pieces = list(dict.fromkeys(c.piece for c in dense))
    rows = [(pieces.index(c.piece), *i, *o) for c, i, o in zip(dense, inputs.tolist(), outputs.tolist(), strict=True)]
    counts = Counter(rows)
    table: NDArray[np.int64] = np.array(list(counts), np.int64)
    middle = 1 + inputs.shape[1]
    index, inputs, outputs = table[:, 0], table[:, 1:middle], table[:, middle:]
    ranges = []
    for number, piece in enumerate(pieces):
        whole = [(c.inputs, c.outputs) for c in dense if c.piece == piece]
        sides = [(side[index == number], [c[place] for c in whole]) for place, side in enumerate((inputs, outputs))]
        ranges.append((_range(*sides[0]), _range(*sides[1])))
    return Widths(
        tuple(pieces), index, inputs, outputs, np.array(list(counts.values()), np.int64), tuple(ranges), left_out
    )


def _range(tables: IntArray, dense: list[int]) -> Range:
    fixed = not tables[:, :-1].any() and len(set(dense)) == 1
    return (dense[0] if fixed else 1), max(dense)
