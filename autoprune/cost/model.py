"""Costs that follow from a network's shapes: exact, and vectorised over plans."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from autoprune.structure.groups import IntArray, Structure

FloatArray = NDArray[np.float64]


class CostModel(Protocol):
    """plan → cost. `name` is what budgets and reports call it, `unit` what it is counted in."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str: ...

    def __call__(self, kept: IntArray) -> FloatArray:
        """The cost of every plan: kept [..., groups] → [...]."""
        ...

    def along(self, kept: IntArray, group: int, levels: IntArray) -> FloatArray:
        """The cost of every plan if `group` kept each of `levels`: kept [..., groups] → [..., levels]."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class BilinearCost:
    """Σ over layers of per_weight · outputs · inputs + per_output · outputs + constant.

    A layer's outputs and inputs are affine in the numbers of units that its groups keep, so MACs, params and bytes are
    all of this form, counted exactly in integers.

    outputs, inputs: [layers, groups + 1], the last column is constant. per_weight, per_output: [layers].
    """

    name: str
    unit: str
    outputs: IntArray
    inputs: IntArray
    per_weight: IntArray
    per_output: IntArray
    constant: int = 0

    def __call__(self, kept: IntArray) -> FloatArray:
        kept = np.asarray(kept, np.int64)
        outputs = kept @ self.outputs[:, :-1].T + self.outputs[:, -1]
        inputs = kept @ self.inputs[:, :-1].T + self.inputs[:, -1]
        total = (outputs * inputs) @ self.per_weight + outputs @ self.per_output + self.constant
        return np.asarray(total, np.float64)  # exact below 2^53

    def along(self, kept: IntArray, group: int, levels: IntArray) -> FloatArray:
        kept = np.asarray(kept, np.int64)
        per_out, per_in = self.outputs[:, group], self.inputs[:, group]  # [layers]
        touched = np.flatnonzero(per_out | per_in)
        without = kept.copy()
        without[..., group] = 0
        outputs = without @ self.outputs[touched, :-1].T + self.outputs[touched, -1]
        inputs = without @ self.inputs[touched, :-1].T + self.inputs[touched, -1]
        weight, output = self.per_weight[touched], self.per_output[touched]
        # cost(k) = a k² + b k + rest, from (out + p k)(in + q k)
        square = (per_out[touched] * per_in[touched]) @ weight
        linear = (outputs * per_in[touched] + inputs * per_out[touched]) @ weight + per_out[touched] @ output
        now = kept[..., group]
        rest = self(kept) - square * now**2 - linear * now
        levels = np.asarray(levels, np.int64)
        return np.asarray(square * levels**2 + linear[..., None] * levels + rest[..., None], np.float64)


def macs(structure: Structure) -> BilinearCost:
    """Multiply–accumulates of convolutions and linear layers for one sample; 1 MAC = 2 FLOPs."""
    weights = [0 if layer.kind == "norm" else layer.kernel * layer.positions for layer in structure.layers]
    return _bilinear("macs", "MACs", structure, weights, [0] * len(weights), 0)


def params(structure: Structure) -> BilinearCost:
    """Trainable parameters: weights, biases, normalisation's scales and shifts."""
    weights = [0 if layer.kind == "norm" else layer.kernel for layer in structure.layers]
    outputs = [int(layer.bias) + (layer.inputs if layer.kind == "norm" else 0) for layer in structure.layers]
    return _bilinear("params", "parameters", structure, weights, outputs, structure.other_params)


def parameter_bytes(structure: Structure, *, bytes_per_parameter: int = 4) -> BilinearCost:
    """Bytes of the parameters and of BatchNorm's running statistics, at fp32 unless said otherwise."""
    count = params(structure)
    statistics = [layer.statistics for layer in structure.layers]
    return BilinearCost(
        "bytes", "bytes", count.outputs, count.inputs,
        count.per_weight * bytes_per_parameter,
        (count.per_output + np.array(statistics, np.int64)) * bytes_per_parameter,
        count.constant * bytes_per_parameter,
    )  # fmt: skip


def _bilinear(
    name: str, unit: str, structure: Structure, per_weight: list[int], per_output: list[int], constant: int
) -> BilinearCost:
    index = {layer.name: i for i, layer in enumerate(structure.layers)}
    shape = (len(index), len(structure.groups) + 1)
    outputs, inputs = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    outputs[:, -1] = [layer.outputs for layer in structure.layers]
    inputs[:, -1] = [layer.inputs for layer in structure.layers]
    for g, group in enumerate(structure.groups):
        for member in group.members:
            row, (units, per_unit) = index[member.layer], member.positions.shape
            table = outputs if member.axis == "out" else inputs
            table[row, g] += per_unit
            table[row, -1] -= units * per_unit
    return BilinearCost(
        name, unit, outputs, inputs, np.array(per_weight, np.int64), np.array(per_output, np.int64), constant
    )
