import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.plan import PruningPlan

UNITS = {"conv1": 16, "fc1": 64}


def test_sparsity_is_the_fraction_removed() -> None:
    plan = PruningPlan(groups=("conv1", "fc1"), units=(16, 64), kept=(8, 64))
    assert plan.sparsity == {"conv1": 0.5, "fc1": 0.0}


@pytest.mark.parametrize("kept", [-1, 17])
def test_a_group_keeps_none_to_all_of_its_units(kept: int) -> None:
    with pytest.raises(ValueError, match=rf"'conv1'.*0 to 16 units, got {kept}"):
        PruningPlan(("conv1", "fc1"), (16, 64), (kept, 64))


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2 groups, 2 units and 1 kept differ in length"):
        PruningPlan(("conv1", "fc1"), (16, 64), (8,))


def test_sparsities_become_whole_units_and_groups_not_named_stay_whole() -> None:
    assert PruningPlan.from_sparsity(UNITS, {"conv1": 0.4}).kept == (10, 64)  # 9.6 rounded
    assert PruningPlan.from_sparsity(UNITS, {"conv1": 0.999}).kept == (1, 64)
    assert PruningPlan.from_sparsity(UNITS, {}).kept == (16, 64)


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_sparsity_is_at_least_zero_and_below_one(value: float) -> None:
    with pytest.raises(ValueError, match=rf"'fc1'.*\[0, 1\), got {value}"):
        PruningPlan.from_sparsity(UNITS, {"fc1": value})


def test_unknown_groups_are_named() -> None:
    with pytest.raises(ValueError, match=r"\['conv9'\].*\['conv1', 'fc1'\]"):
        PruningPlan.from_sparsity(UNITS, {"conv9": 0.5})


@given(st.dictionaries(st.text(), st.tuples(st.integers(1, 10**6), st.floats(0, 1)), max_size=8))
def test_a_plan_survives_json_and_its_own_sparsity(groups: dict[str, tuple[int, float]]) -> None:
    units = {name: n for name, (n, _) in groups.items()}
    plan = PruningPlan(tuple(units), tuple(units.values()), tuple(max(1, int(n * d)) for n, d in groups.values()))
    assert PruningPlan.from_json(json.loads(json.dumps(plan.as_json()))) == plan
    assert PruningPlan.from_sparsity(units, plan.sparsity) == plan
