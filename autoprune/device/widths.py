"""How wide every layer of a network is under every plan."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autoprune.cost.probing import MISSING, Copies, probe
from autoprune.cost.recording import Forward
from autoprune.device.fused_layer import FusedLayer
from autoprune.device.layer_instances import LayerInstance, instances_of, renamed_as
from autoprune.structure.groups import IntArray, Structure
from autoprune.task.samples import Samples
from autoprune.task.task import plain_forward

Range = tuple[int, int]
TRACED = ("channel", "neuron")  # granularities whose units make layers narrower, each group on its own


@dataclass(frozen=True, slots=True, eq=False)
class Widths:
    """A network's layers under all plans: their widths are affine in the units that groups keep."""

    layers: tuple[FusedLayer, ...]
    """Distinct ones."""
    index: IntArray
    """[instances]: which of the layers each instance is of."""
    inputs: IntArray
    """[instances, groups + 1]: input channels per kept unit; the last column is constant."""
    outputs: IntArray
    """[instances, groups + 1]: the same of output channels."""
    counts: IntArray
    """[instances]: how often the same layer runs at the same widths."""
    ranges: tuple[tuple[Range, Range], ...]
    """[layers]: the fewest and the most inputs and outputs of each."""
    left_out: Mapping[str, int]
    """Operators that are in no layer, with how often they run."""

    def of(self, kept: IntArray) -> tuple[IntArray, IntArray]:
        """Input and output channels of every instance: kept [..., groups] → two of [..., instances]."""
        units = np.asarray(kept, np.float64)  # products of floats are fast, and exact below 2^53
        inputs, outputs = (units @ table[:, :-1].T + table[:, -1] for table in (self.inputs, self.outputs))
        return inputs.astype(np.int64), outputs.astype(np.int64)


def widths_of(
    network: nn.Module, structure: Structure, example_input: Samples, *, forward: Forward = plain_forward
) -> Widths:
    """The network's layers, from forward passes of it and of narrower copies.

    Raises:
        ValueError: Plans make nothing narrower, as most kinds of groups of a transformer, or the forward pass depends
            on the widths in other ways.

    Args:
        network: The network.
        structure: The network's groups and layers.
        example_input: A batch [1, ...] that the network runs on.
        forward: (network, inputs) → outputs: how the network is called.
    """
    strange = sorted({group.granularity for group in structure.groups} - set(TRACED))
    if strange:
        raise ValueError(
            f"latency is measured for networks that lose channels or neurons, and this one's groups lose {strange}; "
            "give it another budget, such as macs:0.5 or bytes:0.5, or an analytical device"
        )
    copies = Copies(network, structure, example_input, forward=forward)
    dense, left_out = instances_of(copies(structure.units).recording)

    def widths(kept: IntArray) -> IntArray:
        instances = renamed_as(instances_of(copies(kept).recording)[0], dense)
        if [own.layer for own in instances] != [own.layer for own in dense]:
            return np.full(2 * len(dense), MISSING)
        return np.array([width for own in instances for width in (own.inputs, own.outputs)], np.int64)

    sizes = probe(structure, widths)
    tables = []
    for number, size in enumerate(sizes):
        if size is None or len(size.tables) > 1:
            raise ValueError(
                f"the width of {dense[number // 2].layer} is not affine in the units that groups keep, or the network "
                "computes other operators when it is narrower, so its layers cannot be timed alone; give it another "
                "budget, such as macs:0.5"
            )
        tables.append(size.affine(len(structure.groups)))
    return _merged(dense, np.stack(tables[::2]), np.stack(tables[1::2]), Counter(left_out))


def _merged(dense: list[LayerInstance], inputs: IntArray, outputs: IntArray, left_out: Counter[str]) -> Widths:
    """Instances of the same layer at the same widths become one."""
    layers = list(dict.fromkeys(own.layer for own in dense))
    rows = [
        (layers.index(own.layer), *i, *o) for own, i, o in zip(dense, inputs.tolist(), outputs.tolist(), strict=True)
    ]
    counts = Counter(rows)
    table: NDArray[np.int64] = np.array(list(counts), np.int64)
    middle = 1 + inputs.shape[1]
    index, inputs, outputs = table[:, 0], table[:, 1:middle], table[:, middle:]
    ranges = []
    for number, layer in enumerate(layers):
        whole = [(own.inputs, own.outputs) for own in dense if own.layer == layer]
        sides = [
            (side[index == number], [width[axis] for width in whole]) for axis, side in enumerate((inputs, outputs))
        ]
        ranges.append((_range(*sides[0]), _range(*sides[1])))
    return Widths(
        tuple(layers), index, inputs, outputs, np.array(list(counts.values()), np.int64), tuple(ranges), left_out
    )


def _range(tables: IntArray, dense: list[int]) -> Range:
    fixed = not tables[:, :-1].any() and len(set(dense)) == 1
    return (dense[0] if fixed else 1), max(dense)
