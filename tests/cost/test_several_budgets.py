import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.cost.budget import parse_budget
from autoprune.cost.budget_multipliers import BudgetMultipliers
from autoprune.cost.combined import TightestShare
from autoprune.cost.model import CostModel
from autoprune.cost.projection import Projector
from tests.cost.projectors import structure_with
from tests.cost.stairs import TableCost, assert_filled
from tests.models import PRUNABLE

STRUCTURE = PRUNABLE["digits_net"].structure()
OBSERVED = PRUNABLE["digits_net"].costs()
COSTS: dict[str, CostModel] = {c.name: c for c in (OBSERVED.macs(), OBSERVED.params(), OBSERVED.parameter_bytes())}


@pytest.mark.parametrize(
    "written", ["macs:0.5,params:0.7", "macs:0.5, params:0.7", ["macs:0.5", "params:0.7"], ("macs:0.5", " params:0.7 ")]
)
def test_several_budgets_are_one(written: str | list[str]) -> None:
    budget = parse_budget(written, COSTS, STRUCTURE)
    assert budget.text == "macs:0.5,params:0.7"
    assert [(bound.text, bound.relative) for bound in budget.bounds] == [("macs:0.5", 0.5), ("params:0.7", 0.7)]
    assert isinstance(budget.cost, TightestShare)
    assert budget.limit == 1.0
    assert budget.relative == pytest.approx(0.5)
    assert budget.tightest.cost.name == "macs"


def test_a_list_of_one_is_that_budget() -> None:
    budget = parse_budget(["macs:0.5"], COSTS, STRUCTURE)
    assert (budget.cost.name, budget.bounds) == ("macs", (budget,))
    assert budget.tightest is budget


def test_what_is_written_together_is_read_again() -> None:
    once = parse_budget(["macs:0.5", "bytes:20kB"], COSTS, STRUCTURE)
    again = parse_budget(once.text, COSTS, STRUCTURE)
    assert [(b.text, b.limit) for b in again.bounds] == [(b.text, b.limit) for b in once.bounds]


@pytest.mark.parametrize(
    ("budgets", "complaint"),
    [
        ([], "an empty list is no budget"),
        (["macs:0.5", "macs:0.4"], "budget 'macs:0.5,macs:0.4' bounds macs twice"),
        (["macs:0.5", "flops:0.4"], "'flops:0.4' names the unknown cost 'flops'"),
        (["macs:0.5", "params:1"], None),
        (["macs:0.5", "params:1G"], None),
        (["macs:1G", "params:1G"], "budget 'macs:1G' is 1,000,000,000 MACs, more than the dense network costs"),
        (["macs:0.5", "params:3"], "budget 'params:3' is 3 parameters, less than the smallest plan costs"),
        ("macs:0.5,", "budget '' must be written cost:amount"),
    ],
)
def test_each_of_them_is_checked(budgets: list[str], complaint: str | None) -> None:
    """One that the dense network meets is no mistake beside one that it does not."""
    if complaint is None:
        parse_budget(budgets, COSTS, STRUCTURE)
        return
    with pytest.raises(ValueError, match=re.escape(complaint)):
        parse_budget(budgets, COSTS, STRUCTURE)


def test_budgets_that_exclude_each_other_say_which_and_what_is_feasible() -> None:
    """Wide is fast and narrow is small: a half of both there is not."""
    structure = structure_with([(1, 2, 3, 4)])
    costs: dict[str, CostModel] = {
        "time": TableCost("time", np.array([0, 8, 4, 2, 3.0])),
        "space": TableCost("space", np.array([0, 1, 2, 3, 4.0]), "bytes"),
    }
    with pytest.raises(ValueError, match=r"'time:2ms,space:0.5'") as error:
        parse_budget(["time:2ms", "space:0.5"], costs, structure)
    assert "exceeds 'space:0.5' (3 of 2 bytes)" in str(error.value)
    found = str(error.value).rpartition(" ")[2]
    assert found == "time:2ms,space:0.7500"
    parse_budget(found, costs, structure)
    with pytest.raises(ValueError, match="together feasible are") as error:
        parse_budget(["time:2.5ms", "space:1.5"], costs, structure)
    parse_budget(str(error.value).rpartition(" ")[2], costs, structure)


def test_a_unit_is_of_its_cost() -> None:
    costs: dict[str, CostModel] = {"time": TableCost("time", np.array([0, 1, 2, 3, 4.0]))}
    structure = structure_with([(1, 2, 3, 4)])
    for text, limit in (("time:2500us", 2.5), ("time:2.5", 2.5), ("time:0.5", 2.0), ("time:0.003s", 3.0)):
        assert parse_budget(text, costs, structure).limit == pytest.approx(limit)
    with pytest.raises(ValueError, match=r"'time:2kB'.*'kB'.*'ms', 's'\]"):
        parse_budget("time:2kB", costs, structure)
    with pytest.raises(ValueError, match=re.escape("lie between time:0.2500 and time:1 (1 to 4 ms)")):
        parse_budget("time:0.9ms", costs, structure)


def test_a_cost_that_is_nothing_cannot_be_bounded() -> None:
    costs: dict[str, CostModel] = {"time": TableCost("time", np.zeros(5))}
    with pytest.raises(ValueError, match=r"'time:0.5'"):
        parse_budget("time:0.5", costs, structure_with([(1, 2, 3, 4)]))


@given(st.data())
def test_plans_fill_several_exact_budgets(data: st.DataObject) -> None:
    fractions = [data.draw(st.floats(0.15, 0.95)) for _ in COSTS]
    budget = parse_budget([f"{n}:{f:.4f}" for n, f in zip(COSTS, fractions, strict=True)], COSTS, STRUCTURE)
    projector = Projector(STRUCTURE, budget)
    assert projector.never_falls
    assert_filled(projector, projector.project(np.array([data.draw(st.floats(0.01, 1)) for _ in STRUCTURE.units])))


def test_prices_follow_what_is_exceeded() -> None:
    budget = parse_budget(["macs:0.5", "params:0.5"], COSTS, STRUCTURE)
    prices = BudgetMultipliers(budget)
    kept = STRUCTURE.units
    assert float(prices.cost(kept)) == pytest.approx(2.0)
    thin = np.array([16, 1, 1, 1, 1, 1])[: len(kept)]  # many MACs, few parameters
    shares = [float(bound.cost(thin)) / bound.limit for bound in budget.bounds]
    before = float(prices.cost(thin))
    assert before == pytest.approx(sum(shares) / 2)
    assert not prices.follow(thin)
    assert float(prices.cost(thin)) == pytest.approx(sum(s * s for s in shares) / sum(shares))
    assert float(prices.cost(thin)) > before
    for _ in range(200):
        settled = prices.follow(thin)
    assert settled
    assert float(prices.cost(thin)) == pytest.approx(max(shares), rel=0.05)


def test_one_budget_is_its_own_price() -> None:
    budget = parse_budget("macs:0.5", COSTS, STRUCTURE)
    prices = BudgetMultipliers(budget)
    assert prices.follow(STRUCTURE.units)
    assert (prices.cost, prices.limit) == (budget.cost, budget.limit)


def test_the_documented_cost_is_projected_onto() -> None:
    document = (Path(__file__).parents[2] / "docs" / "budgets.md").read_text()
    names: dict[str, Any] = {}
    exec(re.findall(r"^```python\n(.*?)^```", document, re.MULTILINE | re.DOTALL)[0], names)
    budget, kept = names["budget"], names["kept"]
    assert budget.meets(kept)
    assert set(kept.tolist()) <= {8, 16, 24, 32}, "a step that is begun is used to its end"
