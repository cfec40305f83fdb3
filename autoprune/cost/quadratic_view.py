"""A bilinear cost as the quadratic form that it is in the kept units: what a group adds, given all others."""

from dataclasses import dataclass

import numpy as np

from autoprune.cost.model import BilinearCost, FloatArray
from autoprune.cost.unit_tables import UnitTables
from autoprune.structure.groups import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class QuadraticCostView:
    """cost(k) = Σ_g square_g k_g² + Σ_{g<h} cross_gh k_g k_h + Σ_g linear_g k_g + constant.

    square, linear: [groups]. cross [groups, groups]: symmetric, 0 on the diagonal and wherever two groups meet in no
    layer, which is almost everywhere. All are whole numbers, in float64: exact below 2^53, and fast.
    tables: where given, k is what they make of the kept units, in which the cost is then not quadratic. smooth: there
    are no steps (cost/forms.py).
    """

    square: FloatArray
    linear: FloatArray
    cross: FloatArray
    constant: float
    tables: UnitTables | None = None
    smooth: bool = True

    def __call__(self, kept: IntArray) -> FloatArray:
        """The cost of every plan: kept [..., groups] → [...]."""
        k = self._counted(kept)
        cost: FloatArray = ((self.square * k + self.linear + k @ self.cross / 2) * k).sum(axis=-1) + self.constant
        return cost

    def changed(self, kept: IntArray, levels: IntArray) -> FloatArray:
        """[groups]: what the plan costs if one group kept its one of `levels` instead: kept, levels [groups]."""
        k, to = self._counted(kept), self._counted(levels)
        change: FloatArray = (to - k) * (self.square * (to + k) + self.linear + self.cross @ k)
        return change + self(kept)

    def _counted(self, kept: IntArray) -> FloatArray:
        return np.asarray(kept if self.tables is None else self.tables(kept), np.float64)

    @property
    def never_falls(self) -> bool:
        """More units of any group never cost less, whatever the others keep."""
        return bool((self.square >= 0).all() and (self.linear >= 0).all() and (self.cross >= 0).all())


def quadratic_cost_view(cost: BilinearCost) -> QuadraticCostView:
    """The form of Σ weight · (O k + o) · (I k + i) + per_output · (O k + o) + constant, multiplied out."""
    outputs, inputs = cost.outputs[:, :-1], cost.inputs[:, :-1]
    o, i = cost.outputs[:, -1], cost.inputs[:, -1]
    weight = cost.per_weight
    product = (outputs * weight[:, None]).T @ inputs
    cross = product + product.T
    np.fill_diagonal(cross, 0)
    return QuadraticCostView(
        square=product.diagonal().astype(np.float64),
        linear=((weight * i + cost.per_output) @ outputs + (weight * o) @ inputs).astype(np.float64),
        cross=cross.astype(np.float64),
        constant=float((weight * i + cost.per_output) @ o + cost.constant),
        tables=cost.tables,
    )
