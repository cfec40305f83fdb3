"""Costs of plans: exact, and vectorised over many plans at once."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.unit_tables import UnitTables
from autoprune.structure.groups import IntArray

FloatArray = NDArray[np.float64]


class CostModel(Protocol):
    """plan → cost.

    A cost may have three members more, so that less has to be asked of it: `never_falls` and `smooth`, which the
    functions of these names below explain, and `changed(kept, levels)`, a faster way to what that function says, of
    one plan or several.
    """

    @property
    def name(self) -> str:
        """What budgets and reports call it."""
        ...

    @property
    def unit(self) -> str:
        """What it is counted in."""
        ...

    def __call__(self, kept: IntArray) -> FloatArray:
        """The cost of every plan: kept [..., groups] → [...]."""
        ...

    def along(self, kept: IntArray, group: int, levels: IntArray) -> FloatArray:
        """The cost of every plan if one group kept each of the levels.

        Args:
            kept: [..., groups] units of plans.
            group: The index of the group that changes.
            levels: [levels] units that it keeps instead, 0 to all of the group.

        Returns:
            [..., levels]
        """
        ...


def never_falls(cost: CostModel) -> bool:
    """Whether more units of any group never cost less, whatever the others keep, as far as the cost knows."""
    return bool(getattr(cost, "never_falls", False))


def smooth(cost: CostModel) -> bool:
    """Whether no unit costs a multiple of its neighbours for being just above a step, as far as the cost knows."""
    return bool(getattr(cost, "smooth", False))


def changed(cost: CostModel, kept: IntArray, levels: IntArray) -> FloatArray:
    """What plans cost if one group kept its one of the levels instead.

    Args:
        cost: One that is asked for all of these plans at once, or by its own `changed`.
        kept: [..., groups] units of plans.
        levels: [..., groups] units that each group would keep instead.

    Returns:
        [..., groups]
    """
    if hasattr(cost, "changed"):
        return np.asarray(cost.changed(kept, levels))
    if kept.ndim > 1:  # one plan after the other: together they would be as many as plans × groups
        return np.stack([changed(cost, plan, to) for plan, to in zip(kept, levels, strict=True)])
    plans = np.repeat(kept[None], len(kept), axis=0)
    np.fill_diagonal(plans, levels)
    return cost(plans)


def plans_along(kept: IntArray, group: int, levels: IntArray) -> IntArray:
    """Every plan with the group at each of the levels.

    Args:
        kept: [..., groups] units of plans.
        group: The index of the group that changes.
        levels: [levels] units that it keeps.

    Returns:
        [..., levels, groups]
    """
    plans = np.repeat(np.asarray(kept, np.int64)[..., None, :], len(levels), axis=-2)
    plans[..., group] = levels
    return plans


@dataclass(frozen=True, slots=True, eq=False)
class QuadraticCost:
    """Σ_g square_g k_g² + Σ_{g<h} cross_gh k_g k_h + Σ_g linear_g k_g + constant: what MACs and parameters are.

    A layer's outputs and inputs are affine in the numbers of units k that its groups keep, so that its weights are of
    this form. All coefficients are whole numbers in float64: costs are exact below 2^53, and fast.
    """

    name: str
    """What budgets and reports call the cost."""
    unit: str
    """What the cost is counted in."""
    square: FloatArray
    """[groups]"""
    linear: FloatArray
    """[groups]"""
    cross: FloatArray
    """[groups, groups]: symmetric, 0 on the diagonal and wherever two groups meet in no layer."""
    constant: float = 0.0
    """What no group changes."""
    tables: UnitTables | None = None
    """Where given, k is what they make of the kept units, in which the cost is then not quadratic."""
    smooth: bool = True
    """No unit costs a multiple of its neighbours."""

    @classmethod
    def bilinear(
        cls, name: str, unit: str, outputs: IntArray, inputs: IntArray, weights: IntArray, **others: Any
    ) -> "QuadraticCost":
        """Σ over rows of weight · (outputs · [kept, 1]) · (inputs · [kept, 1]).

        Args:
            name: See CostModel.
            unit: See CostModel.
            outputs: [rows, groups + 1], the last column constant.
            inputs: [rows, groups + 1], the last column constant.
            weights: [rows]
            others: Of the fields of the class, `tables`.
        """
        product = (np.asarray(outputs, np.int64) * np.asarray(weights, np.int64)[:, None]).T @ np.asarray(
            inputs, np.int64
        )
        both = (product + product.T).astype(np.float64)
        cross, square = both[:-1, :-1].copy(), product.diagonal()[:-1].astype(np.float64)
        np.fill_diagonal(cross, 0)
        return cls(name, unit, square, both[-1, :-1], cross, float(product[-1, -1]), **others)

    @property
    def never_falls(self) -> bool:
        return bool((self.square >= 0).all() and (self.linear >= 0).all() and (self.cross >= 0).all())

    def __call__(self, kept: IntArray) -> FloatArray:
        k = self._counted(kept)
        cost: FloatArray = ((self.square * k + self.linear + k @ self.cross / 2) * k).sum(axis=-1) + self.constant
        return cost

    def along(self, kept: IntArray, group: int, levels: IntArray) -> FloatArray:
        k, to = self._counted(kept), np.asarray(levels, np.float64)
        if self.tables is not None:
            to = self.tables.of(group, levels).astype(np.float64)
        now, slope = k[..., group, None], (k @ self.cross[group])[..., None] + self.linear[group]
        change: FloatArray = (to - now) * (self.square[group] * (to + now) + slope)
        return change + self(kept)[..., None]

    def changed(self, kept: IntArray, levels: IntArray) -> FloatArray:
        k, to = self._counted(kept), self._counted(levels)
        change: FloatArray = (to - k) * (self.square * (to + k) + self.linear + k @ self.cross)
        return change + self(kept)[..., None]

    def _counted(self, kept: IntArray) -> FloatArray:
        return np.asarray(kept if self.tables is None else self.tables(kept), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class ProductCost:
    """Σ over rows of weight · Π over factors of (factor · [kept, 1]): costs of any degree in the kept units."""

    name: str
    """What budgets and reports call the cost."""
    unit: str
    """What the cost is counted in."""
    factors: IntArray
    """[rows, factors, groups + 1]: affine in the kept units, the last column constant."""
    weights: IntArray
    """[rows]"""
    tables: UnitTables | None = None
    """For groups whose kept units count as something else."""
    smooth: bool = True
    """No unit costs a multiple of its neighbours."""

    @property
    def never_falls(self) -> bool:
        return bool((self.factors >= 0).all() and (self.weights >= 0).all())

    def __call__(self, kept: IntArray) -> FloatArray:
        kept = np.asarray(kept, np.int64) if self.tables is None else self.tables(kept)
        values = np.tensordot(kept, self.factors[..., :-1], (-1, -1)) + self.factors[..., -1]
        return np.asarray(values.prod(axis=-1) @ self.weights, np.float64)

    def along(self, kept: IntArray, group: int, levels: IntArray) -> FloatArray:
        return self(plans_along(kept, group, levels))
