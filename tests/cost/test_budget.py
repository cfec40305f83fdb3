import re

import numpy as np
import pytest

from autoprune.cost.budget import parse_budget
from autoprune.cost.model import CostModel
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Structure
from tests.models import PRUNABLE


@pytest.fixture(scope="module")
def structure() -> Structure:
    return PRUNABLE["digits_net"].structure()


@pytest.fixture(scope="module")
def costs() -> dict[str, CostModel]:
    observed = PRUNABLE["digits_net"].costs()
    return {cost.name: cost for cost in (observed.macs(), observed.params(), observed.parameter_bytes())}


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("params:10_000", 10_000),
        ("params:10000", 10_000),
        ("params:10k", 10_000),
        ("params:1e4", 10_000),
        ("params:1.2e4", 12_000),
        ("params:.01M", 10_000),
        ("params: 10k", 10_000),
        ("bytes:40kB", 40_000),
        ("bytes:40 kB", 40_000),
        ("bytes:32KiB", 32 * 1024),
        ("bytes:0.05MB", 50_000),
        ("bytes:40000", 40_000),
        ("macs:300k", 300_000),
        ("macs:0.2M", 200_000),
    ],
)
def test_absolute_budgets(structure: Structure, costs: dict[str, CostModel], text: str, limit: float) -> None:
    budget = parse_budget(text, costs, structure)
    assert budget.limit == limit
    assert budget.cost.name == text.partition(":")[0]
    assert budget.text == text


@pytest.mark.parametrize("fraction", ["0.5", ".5", "0.3", "1", "1.0", "5e-1"])
@pytest.mark.parametrize("name", ["macs", "params", "bytes"])
def test_relative_budgets(structure: Structure, costs: dict[str, CostModel], name: str, fraction: str) -> None:
    budget = parse_budget(f"{name}:{fraction}", costs, structure)
    assert budget.dense == costs[name](structure.units)
    assert budget.limit == float(fraction) * budget.dense
    assert budget.relative == pytest.approx(float(fraction))


@pytest.mark.parametrize(
    "text", ["", "macs", "macs:", ":0.5", "macs=0.5", "macs:half", "macs:-0.5", "macs:50%", "macs:nan", "macs:0.5.1"]
)
def test_unreadable_budgets_say_how_to_write_one(structure: Structure, costs: dict[str, CostModel], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"budget {text!r}") + ".*(such as macs:0.5|the costs are)"):
        parse_budget(text, costs, structure)


def test_unknown_costs_and_units_are_named(structure: Structure, costs: dict[str, CostModel]) -> None:
    with pytest.raises(ValueError, match=r"'flops:0.5'.*'flops'.*\['macs', 'params', 'bytes'\]"):
        parse_budget("flops:0.5", costs, structure)
    with pytest.raises(ValueError, match=r"'bytes:200kb'.*'kb'.*'kB'"):
        parse_budget("bytes:200kb", costs, structure)
    with pytest.raises(ValueError, match=r"'params:10kB'.*'kB'.*\['k', 'M', 'G'\]"):
        parse_budget("params:10kB", costs, structure)


@pytest.mark.parametrize(
    "text", ["macs:0", "macs:0.0001", "params:2", "params:10", "bytes:100B", "macs:1.5", "params:1G", "bytes:1GB"]
)
def test_infeasible_budgets_say_what_is_feasible(structure: Structure, costs: dict[str, CostModel], text: str) -> None:
    name = text.partition(":")[0]
    least, dense = (float(costs[name](kept)) for kept in (structure.floor, structure.units))
    with pytest.raises(ValueError, match=f"budget {text!r} is .*(less|more) than") as error:
        parse_budget(text, costs, structure)
    assert f"({least:,.0f} to {dense:,.0f} {costs[name].unit})" in str(error.value)
    for suggestion in re.search(r"lie between (\S+) and (\S+) ", str(error.value)).groups():
        parse_budget(suggestion, costs, structure)  # what the message suggests is feasible


@pytest.mark.parametrize("name", ["macs", "params", "bytes"])
def test_the_range_is_feasible_to_its_ends(structure: Structure, costs: dict[str, CostModel], name: str) -> None:
    for kept in (structure.floor, structure.units):
        cost = int(costs[name](kept))
        assert parse_budget(f"{name}:{cost}", costs, structure).limit == cost
    least = int(costs[name](structure.floor))
    with pytest.raises(ValueError, match="less than the smallest plan costs"):
        parse_budget(f"{name}:{least - 1}", costs, structure)
    with pytest.raises(ValueError, match="more than the dense network costs"):
        parse_budget(f"{name}:{cost + 1}", costs, structure)


def test_minimum_units_narrow_the_range() -> None:
    network = PRUNABLE["digits_net"]
    structure = find_structure(network.model(), network.inputs(), min_units=12)
    cost = network.costs().macs()
    least = float(cost(np.minimum(12, structure.units)))
    with pytest.raises(ValueError, match=f"{least:,.0f} to"):
        parse_budget("macs:0.1", {"macs": cost}, structure)
