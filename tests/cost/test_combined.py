import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.cost.combined import TightestShare, WeightedSum
from autoprune.cost.model import changed, never_falls, smooth
from tests.cost.projectors import plans_changed
from tests.cost.stairs import TableCost, tables
from tests.models import PRUNABLE

amounts = st.floats(1e-6, 1e12)


@given(amounts, amounts, st.integers(-3, 3))
def test_a_share_is_at_most_one_where_the_limit_is_met_to_the_last_bit(cost: float, limit: float, ulps: int) -> None:
    """Also where the cost is the limit's very neighbour."""
    near = limit
    for _ in range(abs(ulps)):
        near = float(np.nextafter(near, np.inf if ulps > 0 else 0))
    for value in (cost, near):
        share = TightestShare((), (limit,)).together([np.array(value)])
        assert bool(share <= 1.0) == (value <= limit)


def test_a_limit_of_zero_is_met_by_zero_alone() -> None:
    shares = TightestShare((), (0.0,)).together([np.array([0.0, 1e-9, 3.0])])
    assert (shares <= 1).tolist() == [True, False, False]


def test_weights_that_are_negative_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'energy'.*\[1.0, -0.5\]"):
        WeightedSum("energy", "mJ", (), (1.0, -0.5))


@given(st.data())
def test_every_form_of_a_combination_is_the_combination(data: st.DataObject) -> None:
    """Of costs that are quadratic and of one that is not: to the last bit, in every way of asking."""
    structure = PRUNABLE["residual"].structure()
    table = data.draw(tables("table", structure.units.tolist(), monotone=False))
    costs = PRUNABLE["residual"].costs()
    parts = (costs.macs(), costs.params(), table, costs.parameter_bytes())
    factors = tuple(data.draw(st.floats(0.1, 1e5)) for _ in parts)
    for cost in (TightestShare(parts, factors), WeightedSum("sum", "units", parts, factors)):
        kept = np.array([[data.draw(st.integers(1, n)) for n in structure.units.tolist()] for _ in range(2)])
        values = [float(cost.together([part(row) for part in parts])) for row in kept]
        assert cost(kept).tolist() == values
        assert not never_falls(cost)
        assert not smooth(cost)
        assert changed(cost, kept[0], kept[1]).tolist() == cost(plans_changed(kept[0], kept[1])).tolist()
        for group in range(len(structure.units)):
            levels = np.array(structure.groups[group].levels)
            each = np.repeat(kept[:, None], len(levels), axis=1)
            each[..., group] = levels
            assert cost.along(kept, group, levels).tolist() == cost(each).tolist()


def test_a_combination_falls_only_where_a_part_may() -> None:
    costs = PRUNABLE["residual"].costs()
    exact = (costs.macs(), costs.params())
    assert never_falls(TightestShare(exact, (1.0, 2.0)))
    assert smooth(TightestShare(exact, (1.0, 2.0)))
    assert TightestShare(exact, (1.0, 2.0)).name == "macs,params"
    assert not never_falls(TightestShare((*exact, TableCost("time", np.ones((7, 9)))), (1.0, 2.0, 3.0)))
