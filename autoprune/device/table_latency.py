"""Latency as a cost: the sum of a network's layers at a plan's widths, from tables, in milliseconds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.device.widths import Widths
from autoprune.structure.groups import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class TableLatency:
    """constant + Σ over instances of counts · table[inputs, outputs], looked up."""

    widths: Widths
    """What every layer's inputs and outputs are under a plan."""
    values: FloatArray
    """All tables, flat."""
    starts: IntArray
    """[instances]: where each one's table begins."""
    strides: IntArray
    """[instances]: the length of the table's rows; 0 of a layer of one width."""
    constant: float
    """Of all that no group changes, in milliseconds."""
    name: str = "latency"
    """What budgets and reports call the cost."""
    unit: str = "ms"
    """What the cost is counted in."""

    @classmethod
    def of(cls, widths: Widths, tables: Sequence[FloatArray], *, constant: float = 0.0) -> "TableLatency":
        """tables [layers]: milliseconds at [inputs, outputs], [inputs, 1] of layers of one width.

        Args:
            widths: The widths of every layer, by what groups keep.
            tables: Milliseconds at [inputs, outputs] of each layer; [inputs, 1] of layers of one width.
            constant: What does not depend on widths, in milliseconds.
        """
        starts = np.cumsum([0, *(table.size for table in tables)])
        strides = np.array([0 if widths.layers[i].square else tables[i].shape[1] for i in widths.index], np.int64)
        values = np.concatenate([table.ravel() for table in tables])
        return cls(widths, values, starts[widths.index].astype(np.int64), strides, constant)

    def __call__(self, kept: IntArray) -> FloatArray:
        inputs, outputs = self.widths.of(kept)
        return np.asarray(self._instances(inputs, outputs, slice(None)) + self.constant, np.float64)

    def along(self, kept: IntArray, group: int, levels: IntArray) -> FloatArray:
        kept = np.asarray(kept, np.int64)
        slopes = [self.widths.inputs[:, group], self.widths.outputs[:, group]]
        touched = np.flatnonzero((slopes[0] != 0) | (slopes[1] != 0))
        inputs, outputs = self.widths.of(kept)
        rest = self(kept) - self._instances(inputs[..., touched], outputs[..., touched], touched)
        change = (np.asarray(levels, np.int64) - kept[..., group, None])[..., None]  # [..., levels, 1]
        sides = (inputs[..., None, touched], outputs[..., None, touched])
        ins, outs = (side + change * slope[touched] for side, slope in zip(sides, slopes, strict=True))
        return np.asarray(rest[..., None] + self._instances(ins, outs, touched), np.float64)

    def _instances(self, inputs: IntArray, outputs: IntArray, instances: slice | IntArray) -> FloatArray:
        """[..., instances] → [...]"""
        strides = self.strides[instances]
        entries = self.starts[instances] + np.where(strides > 0, inputs * strides + outputs, inputs)
        return np.asarray(self.values[entries] @ self.widths.counts[instances], np.float64)
