"""Costs that are any numbers, for what must hold whatever a cost is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import reject
from hypothesis import strategies as st

from autoprune.cost.budget import Budget
from autoprune.cost.combined import TightestShare
from autoprune.cost.model import CostModel, FloatArray
from autoprune.cost.projection import Projector
from autoprune.structure.groups import IntArray, Structure
from tests.cost.projectors import structure_with


@dataclass(frozen=True, eq=False)
class TableCost:
    """table: the cost of every plan, an axis for each group."""

    name: str
    table: FloatArray
    unit: str = "ms"

    def __call__(self, kept: IntArray) -> FloatArray:
        return np.asarray(self.table[tuple(np.moveaxis(np.asarray(kept), -1, 0))], np.float64)

    def along(self, kept: IntArray, group: int, levels: IntArray) -> FloatArray:
        plans = np.repeat(np.asarray(kept)[..., None, :], len(levels), axis=-2)
        plans[..., group] = levels
        return self(plans)


@st.composite
def tables(draw: st.DrawFn, name: str, units: Sequence[int], *, monotone: bool) -> TableCost:
    shape = [n + 1 for n in units]
    values = draw(st.lists(st.integers(0, 20), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    table = np.reshape(np.array(values, np.float64), shape)
    for axis in range(len(shape)) if monotone else ():
        table = table.cumsum(axis=axis)
    return TableCost(name, table / 4 + 1)


@st.composite
def staircases(draw: st.DrawFn, *, monotone: bool | None = None) -> Projector:
    """Up to three groups and three costs, each with steps, that fall or not; budgets that one of the plans meets."""
    sets = st.sets(st.integers(0, 4), min_size=1, max_size=4)
    levels = draw(st.lists(sets.map(lambda s: tuple(sorted({*s, max(*s, 1)}))), min_size=1, max_size=3))
    structure = structure_with(levels)
    falls = [not draw(st.booleans()) if monotone is None else not monotone for _ in range(draw(st.integers(1, 3)))]
    costs = [
        draw(tables(f"cost{i}", structure.units.tolist(), monotone=not falling)) for i, falling in enumerate(falls)
    ]
    plan = np.array([draw(st.sampled_from(each)) for each in levels])
    bounds = [_budget(cost, float(cost(plan)) + draw(st.sampled_from([0.0, 0.5])), structure) for cost in costs]
    try:
        return Projector(structure, together(bounds, structure))
    except ValueError:  # a descent does not find every valley
        reject()


def together(bounds: Sequence[Budget], structure: Structure) -> Budget:
    if len(bounds) == 1:
        return bounds[0]
    cost = TightestShare(tuple(b.cost for b in bounds), tuple(b.limit for b in bounds))
    return Budget("together", cost, 1.0, float(cost(structure.units)), tuple(bounds))


def _budget(cost: CostModel, limit: float, structure: Structure) -> Budget:
    return Budget(cost.name, cost, limit, float(cost(structure.units)))


def meets_all(projector: Projector, kept: IntArray) -> bool:
    """Asked of every single cost, not of the largest share."""
    return all(float(bound.cost(kept)) <= bound.limit for bound in projector.budget.bounds)


def raised(projector: Projector, kept: IntArray, group: int) -> list[IntArray]:
    """The plans with any higher level of one group."""
    plans = []
    for level in projector.levels[group][projector.levels[group] > kept[group]]:
        plans.append(kept.copy())
        plans[-1][group] = level
    return plans


def assert_filled(projector: Projector, kept: IntArray) -> None:
    """Inside every budget, on levels, and no group could keep any more units."""
    assert meets_all(projector, kept)
    assert all(k in levels for k, levels in zip(kept, projector.levels, strict=True))
    for group in range(len(kept)):
        assert not any(meets_all(projector, more) for more in raised(projector, kept, group))
