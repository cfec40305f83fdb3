"""Ranges of budgets: what is written, and what is drawn of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.cost.budget_range import BudgetRange
from tests.search.toys import additive, weights

STRUCTURE, PROJECTOR = additive(*(weights(f"g{i}", units=20) for i in range(3)), prices=[3, 1, 2], limit=60)
COSTS = {"weights": PROJECTOR.budget.cost}


def test_it_is_written_as_a_budget_is() -> None:
    assert BudgetRange.parse("macs:0.2..0.8") == BudgetRange("macs", 0.2, 0.8)
    assert BudgetRange.parse(" params:.5 ") == BudgetRange("params", 0.5, 0.5)
    assert str(BudgetRange("macs", 0.2, 0.8)) == "macs:0.2..0.8"


@pytest.mark.parametrize("text", ["0.2..0.8", "macs", "macs:0.2-0.8", "macs:a..b", "macs:0.2..0.3..0.4", "macs:1e3k"])
def test_what_cannot_be_read_says_how_it_is_written(text: str) -> None:
    with pytest.raises(ValueError, match=r"cost:low\.\.high.*macs:0\.2\.\.0\.8"):
        BudgetRange.parse(text)


@pytest.mark.parametrize("text", ["macs:0.8..0.2", "macs:0..0.5", "macs:0.5..1.5"])
def test_it_goes_up_within_0_and_1(text: str) -> None:
    with pytest.raises(ValueError, match="must go up, within 0 and 1"):
        BudgetRange.parse(text)


@given(low=st.floats(0.05, 1), high=st.floats(0.05, 1), count=st.integers(1, 9), seed=st.integers(0, 99))
def test_one_is_drawn_of_each_part(low: float, high: float, count: int, seed: int) -> None:
    low, high = sorted((low, high))
    drawn = BudgetRange("weights", low, high).draw(count, COSTS, STRUCTURE, np.random.default_rng(seed))
    shares = [budget.relative for budget in drawn]
    edges = np.exp(np.linspace(np.log(low), np.log(high), count + 1))
    assert len(shares) == count
    for share, before, after in zip(shares, edges, edges[1:], strict=False):
        assert before - 1e-9 <= share <= after + 1e-4 + 1e-9


def test_what_no_plan_meets_is_not_drawn() -> None:
    """One unit of each group is 5 % of the dense network."""
    drawn = BudgetRange("weights", 0.01, 0.2).draw(20, COSTS, STRUCTURE, np.random.default_rng(0))
    assert min(budget.relative for budget in drawn) >= 0.05
    with pytest.raises(ValueError, match=r"weights:0.01..0.02.*costs, 0.0500"):
        BudgetRange("weights", 0.01, 0.02).draw(1, COSTS, STRUCTURE, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"'macs'.*\['weights'\]"):
        BudgetRange("macs", 0.1, 0.2).draw(1, COSTS, STRUCTURE, np.random.default_rng(0))
