"""Costs that follow from a network's shapes: exact, and vectorised over plans."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.unit_tables import UnitTables
from autoprune.structure.groups import IntArray

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


@dataclass(frozen=True, slots=True, eq=False)
class ProductCost:
    """Σ over rows of weight · Π over factors of (factor · [kept, 1]): costs of any degree in the kept units."""

    name: str
    unit: str
    factors: IntArray
    """[rows, factors, groups + 1]: affine in the kept units, the last column constant."""
    weights: IntArray
    """[rows]"""
    tables: UnitTables | None = None
    """For groups whose kept units count as something else."""
    smooth: bool = True

    @property
    def never_falls(self) -> bool:
        """Where no coefficient is negative, no unit costs less than nothing."""
        return bool((self.factors >= 0).all() and (self.weights >= 0).all())

    def __call__(self, kept: IntArray) -> FloatArray:
        kept = np.asarray(kept, np.int64) if self.tables is None else self.tables(kept)
        values = np.tensordot(kept, self.factors[..., :-1], (-1, -1)) + self.factors[..., -1]
        return np.asarray(values.prod(axis=-1) @ self.weights, np.float64)

    def along(self, kept: IntArray, group: int, levels: IntArray) -> FloatArray:
        return self(plans_along(kept, group, levels))


def plans_along(kept: IntArray, group: int, levels: IntArray) -> IntArray:
    """Every plan with the group at each of the levels: kept [..., groups] → [..., levels, groups]."""
    plans = np.repeat(np.asarray(kept, np.int64)[..., None, :], len(levels), axis=-2)
    plans[..., group] = levels
    return plans
