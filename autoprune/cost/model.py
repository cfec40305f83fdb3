"""Costs that follow from a network's shapes: exact, and vectorised over plans."""

import math
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.unit_tables import UnitTables, pair_tables
from autoprune.structure.groups import IntArray, Layer, Structure, holds

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


@runtime_checkable
class Regular(Protocol):
    """What a cost model may say of itself beside its costs, so that less has to be asked of it."""

    @property
    def never_falls(self) -> bool:
        """More units of any group never cost less, whatever the others keep."""
        ...

    @property
    def smooth(self) -> bool:
        """It has no steps: no unit costs a multiple of its neighbours for being just above one."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class BilinearCost:
    """Σ over layers of per_weight · outputs · inputs + per_output · outputs + constant.

    A layer's outputs and inputs are affine in the numbers of units that its groups keep, and it is there or not, so
    MACs, params and bytes are all of this form, counted exactly in integers.

    outputs, inputs: [rows, groups + 1], the last column is constant. per_weight, per_output: [rows]. A row is a layer,
    or a part of one that has a form of its own. tables: for groups whose kept units count as something else.
    """

    name: str
    unit: str
    outputs: IntArray
    inputs: IntArray
    per_weight: IntArray
    per_output: IntArray
    constant: int = 0
    tables: UnitTables | None = None
    _touched: dict[int, "_Touched"] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, kept: IntArray) -> FloatArray:
        return self._total(np.asarray(kept, np.int64) if self.tables is None else self.tables(kept))

    def _total(self, kept: IntArray) -> FloatArray:
        outputs = kept @ self.outputs[:, :-1].T + self.outputs[:, -1]
        inputs = kept @ self.inputs[:, :-1].T + self.inputs[:, -1]
        total = (outputs * inputs) @ self.per_weight + outputs @ self.per_output + self.constant
        return np.asarray(total, np.float64)  # exact below 2^53

    def along(self, kept: IntArray, group: int, levels: IntArray) -> FloatArray:
        kept, levels = np.asarray(kept, np.int64), np.asarray(levels, np.int64)
        if self.tables is not None:
            kept, levels = self.tables(kept), self.tables.of(group, levels)
        if group not in self._touched:
            self._touched[group] = _Touched.of(self, group)
        rows = self._touched[group]
        now = kept[..., group]
        without = kept.copy()
        without[..., group] = 0
        outputs = without @ rows.outputs + rows.constant_outputs
        inputs = without @ rows.inputs + rows.constant_inputs
        # cost(k) = a k² + b k + rest, from (out + p k)(in + q k)
        linear = outputs @ rows.weighted_in + inputs @ rows.weighted_out + rows.linear
        rest = self._total(kept) - rows.square * now**2 - linear * now
        return np.asarray(rows.square * levels**2 + linear[..., None] * levels + rest[..., None], np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Touched:
    """What `along` needs of the rows that a group is in: found once, as searches ask thousands of times.

    outputs, inputs: [groups, touched], constants and weights [touched]. square, linear: parts of the coefficients of
    the group's units.
    """

    outputs: IntArray
    inputs: IntArray
    constant_outputs: IntArray
    constant_inputs: IntArray
    weighted_out: IntArray
    weighted_in: IntArray
    square: int
    linear: int

    @classmethod
    def of(cls, cost: BilinearCost, group: int) -> "_Touched":
        rows = np.flatnonzero(cost.outputs[:, group] | cost.inputs[:, group])
        outputs, inputs, weight = cost.outputs[rows], cost.inputs[rows], cost.per_weight[rows]
        per_out, per_in = outputs[:, group], inputs[:, group]
        return cls(
            outputs[:, :-1].T.copy(),
            inputs[:, :-1].T.copy(),
            outputs[:, -1],
            inputs[:, -1],
            weighted_out=per_out * weight,
            weighted_in=per_in * weight,
            square=int((per_out * per_in) @ weight),
            linear=int(per_out @ cost.per_output[rows]),
        )


def macs(structure: Structure) -> BilinearCost:
    """Multiply–accumulates of convolutions, linear layers and attentions for one sample; 1 MAC = 2 FLOPs.

    Of matrices that lose single weights, those that are left: what it would take on hardware that skips zeros. An
    attention takes the square of its tokens, and of fewer blocks of keys their share (cost/tables.py): what it would
    take in a kernel that skips blocks.
    """
    weights = [0 if layer.kind == "norm" else layer.kernel * layer.positions for layer in structure.layers]
    return summed("macs", "MACs", structure, weights, [0] * len(weights), 0)


def params(structure: Structure) -> BilinearCost:
    """Trainable parameters that are not zero: weights, biases, normalisation's scales and shifts."""
    return summed("params", "parameters", structure, *_parameters(structure), structure.other_params)


def weights(structure: Structure) -> BilinearCost:
    """Weights of the layers that some group takes from, biases left out: what papers on sparsity count."""
    touched = {layer.name for group in structure.groups for layer in structure.layers_of(group)}
    per_weight, _ = _parameters(structure)
    counted = [w if layer.name in touched else 0 for w, layer in zip(per_weight, structure.layers, strict=True)]
    return summed("weights", "weights", structure, counted, [0] * len(counted), 0)


def parameter_bytes(structure: Structure, *, bytes_per_parameter: int = 4) -> BilinearCost:
    """Bytes of the parameters and of BatchNorm's running statistics, at fp32 unless said otherwise."""
    return _stored("bytes", structure, of_weights=bytes_per_parameter, of_others=bytes_per_parameter)


def weight_bytes(structure: Structure, *, bytes_per_weight: int) -> BilinearCost:
    """The same where the weights of convolutions and linear layers take so many bytes, and all else stays at fp32."""
    return _stored("weight_bytes", structure, of_weights=bytes_per_weight, of_others=4)


def _stored(name: str, structure: Structure, *, of_weights: int, of_others: int) -> BilinearCost:
    per_weight, per_output = _parameters(structure)
    others = [count + layer.statistics for count, layer in zip(per_output, structure.layers, strict=True)]
    return summed(
        name, "bytes", structure,
        [of_weights * count for count in per_weight],
        [of_others * count for count in others],
        structure.other_params * of_others,
    )  # fmt: skip


def _parameters(structure: Structure) -> tuple[list[int], list[int]]:
    """Per layer: what an output and an input together, and what an output alone, account for."""
    per_weight = [layer.kernel if layer.kind in ("conv", "linear") else 0 for layer in structure.layers]
    per_output = [int(layer.bias) + (layer.inputs if layer.kind == "norm" else 0) for layer in structure.layers]
    return per_weight, per_output


def summed(
    name: str, unit: str, structure: Structure, per_weight: list[int], per_output: list[int], constant: int
) -> BilinearCost:
    """Σ over layers of per_weight · outputs · inputs + per_output · outputs [layers each], and a constant.

    A row for every layer, and one more for its outputs where they do not multiply with its inputs alone.
    """
    ones = np.append(np.zeros(len(structure.groups), np.int64), 1)
    tokens = {pattern.module: pattern.tokens for group in structure.groups for pattern in group.patterns}
    tables = None
    rows: list[tuple[IntArray, IntArray, int, int]] = []
    for layer, weight, output in zip(structure.layers, per_weight, per_output, strict=True):
        outs, ins, whole = _factors(structure, layer)
        if layer.name in tokens and weight:
            weight = weight * layer.inputs // tokens[layer.name] ** 2  # of a pair of tokens
            tables = pair_tables(structure)
        if len(outs) <= 1 and len(ins) <= 1 and not whole:
            rows.append(
                (outs[0] if outs else ones * layer.outputs, ins[0] if ins else ones * layer.inputs, weight, output)
            )
            continue
        factors = outs + ins + whole
        # every factor of an axis is a count of its own; what is not counted by one is constant
        constants = (1 if outs else layer.outputs) * (1 if ins else layer.inputs)
        rows.append((*_product(factors, layer, ones), weight * constants, 0))
        if output:
            rows.append((*_product(outs + whole, layer, ones), output * (1 if outs else layer.outputs), 0))
    outputs, inputs, weights, alone = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return BilinearCost(name, unit, outputs, inputs, weights, alone, constant, tables)


def _product(factors: list[IntArray], layer: Layer, ones: IntArray) -> tuple[IntArray, IntArray]:
    if len(factors) > 2:
        raise ValueError(
            f"three groups decide about layer {layer.name!r}, but costs count at most two; prune fewer kinds"
        )
    first, second = [*factors, ones, ones][:2]
    return first, second


def _factors(structure: Structure, layer: Layer) -> tuple[list[IntArray], list[IntArray], list[IntArray]]:
    """What the layer's outputs and inputs are products of, and whether it is there at all; each [groups + 1], affine.

    Groups that own different entries of an axis add up to one factor. Groups that own all of it (heads, and query heads
    of every key head) multiply.
    """
    outs: list[IntArray] = []
    ins: list[IntArray] = []
    whole: list[IntArray] = []
    for axis, size, found in (("out", layer.outputs, outs), ("in", layer.inputs, ins)):
        shares = [
            (index, *member.positions.shape)
            for index, group in enumerate(structure.groups)
            for member in group.members
            if (member.layer, member.axis) == (layer.name, axis)
        ]
        if sum(units * each for _, units, each in shares) > size:
            found += _shared(structure, layer, shares, size)
        elif shares:
            table = np.zeros(len(structure.groups) + 1, np.int64)
            table[-1] = size - sum(units * each for _, units, each in shares)
            for index, _, each in shares:
                table[index] += each
            found.append(table)
    for index, group in enumerate(structure.groups):
        for matrix in group.compared:
            if matrix.layer == layer.name:
                ins.append(_alone(structure, index, layer.inputs // matrix.size))
        if any(layer.name == pattern.module for pattern in group.patterns):
            ins.append(_alone(structure, index, 1))
        if any(holds(skip.module, layer.name) for skip in group.skips):
            whole.append(_alone(structure, index, 1))
    return outs, ins, whole


def _shared(structure: Structure, layer: Layer, shares: list[tuple[int, int, int]], size: int) -> list[IntArray]:
    rest, remainder = divmod(size, math.prod(units for _, units, _ in shares))
    if remainder or any(units * each != size for _, units, each in shares):
        raise ValueError(f"groups share some entries of {layer.name!r} and not others, which costs cannot count")
    return [_alone(structure, index, rest if place == 0 else 1) for place, (index, _, _) in enumerate(shares)]


def _alone(structure: Structure, group: int, each: int) -> IntArray:
    table = np.zeros(len(structure.groups) + 1, np.int64)
    table[group] = each
    return table
