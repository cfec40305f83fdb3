from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autoprune.cost.budget import Budget
from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.structure.groups import Group, IntArray, Structure
from tests.cost.projectors import (
    NETWORKS,
    Hidden,
    assert_tight,
    budget_of,
    costs_of,
    on_levels,
    on_multiples,
    one_level_up,
    projectors,
    structure_of,
)


def wishes(projector: Projector) -> st.SearchStrategy[FloatArray]:
    return st.lists(
        st.floats(1e-6, 1), min_size=len(projector.units), max_size=len(projector.units)
    ).map(np.array)  # fmt: skip


@given(st.data())
def test_projected_plans_meet_the_budget_on_their_levels_and_are_filled(data: st.DataObject) -> None:
    projector = data.draw(projectors())
    kept = projector.project(data.draw(wishes(projector)))
    assert projector.budget.cost(kept) <= projector.budget.limit
    assert on_levels(projector, kept)
    assert all(projector.budget.cost(more) > projector.budget.limit for more in one_level_up(projector, kept))


@given(st.data())
def test_a_filled_plan_is_its_own_projection(data: st.DataObject) -> None:
    projector = data.draw(projectors())
    kept = projector.project(data.draw(wishes(projector)))
    assert projector.project(kept / projector.units).tolist() == kept.tolist()


@given(st.data())
def test_a_plan_that_costs_exactly_the_budget_is_its_own_projection(data: st.DataObject) -> None:
    structure = structure_of(data.draw(st.sampled_from(list(NETWORKS))))
    kept = np.array([data.draw(st.sampled_from(group.levels)) for group in structure.groups])
    cost = costs_of(structure)[data.draw(st.integers(0, 2))]
    projector = Projector(structure, Budget("by hand", cost, float(cost(kept)), float(cost(structure.units))))
    assert projector.project(kept / structure.units).tolist() == kept.tolist()


@given(st.data())
def test_only_the_proportions_of_a_wish_count(data: st.DataObject) -> None:
    projector = data.draw(projectors())
    wish = data.draw(wishes(projector))
    assert projector.project(wish / 8).tolist() == projector.project(wish).tolist()


@given(st.data())
def test_many_wishes_at_once_become_what_they_become_alone(data: st.DataObject) -> None:
    projector = data.draw(projectors())
    wish = np.array([data.draw(wishes(projector)) for _ in range(4)])
    alone = [projector.project(row).tolist() for row in wish]
    assert projector.project(wish).tolist() == alone
    assert projector.project(wish.reshape(2, 2, -1)).tolist() == [alone[:2], alone[2:]]


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5, 0.8])
def test_an_equal_wish_becomes_a_nearly_uniform_plan(fraction: float) -> None:
    structure = structure_of("resnet20")
    projector = Projector(structure, budget_of(structure, fraction=fraction))
    density = projector.project(np.full(len(structure.units), 0.5)) / structure.units
    assert np.ptp(density) <= 2 / structure.units.min()


@given(st.data())
def test_any_walk_inside_the_intervals_meets_the_budget_tightly(data: st.DataObject) -> None:
    projector = data.draw(projectors())
    assert_tight(projector, _walk(projector, lambda choices: data.draw(st.sampled_from(choices))))


@given(projectors())
def test_the_extreme_walks_meet_the_budget_tightly(projector: Projector) -> None:
    for choose in (min, max):
        assert_tight(projector, _walk(projector, choose))


@given(st.data())
def test_an_interval_holds_every_plan_that_uses_the_budget_up(data: st.DataObject) -> None:
    """Nothing worth having is out of reach: a plan that costs exactly the budget can be walked to."""
    structure = structure_of(data.draw(st.sampled_from(list(NETWORKS))))
    plan = np.array([data.draw(st.sampled_from(group.levels)) for group in structure.groups])
    cost = costs_of(structure)[data.draw(st.integers(0, 2))]
    projector = Projector(structure, Budget("by hand", cost, float(cost(plan)), float(cost(structure.units))))
    kept = structure.units
    for group, level in enumerate(plan):
        fewest, most = projector.interval(kept, group)
        assert fewest <= level <= most
        kept[group] = level


@given(st.data())
def test_intervals_of_many_plans_at_once_are_those_of_each(data: st.DataObject) -> None:
    projector = data.draw(projectors())
    group = data.draw(st.integers(0, len(projector.units) - 1))
    rows = []
    for _ in range(3):
        kept = projector.units.copy()
        for earlier in range(group):
            fewest, most = projector.interval(kept, earlier)
            levels = projector.levels[earlier]
            kept[earlier] = data.draw(st.sampled_from(levels[(levels >= fewest) & (levels <= most)].tolist()))
        rows.append(kept)
    fewest, most = projector.interval(np.array(rows), group)
    alone = [projector.interval(row, group) for row in rows]
    assert list(zip(fewest.tolist(), most.tolist(), strict=True)) == [(int(a), int(b)) for a, b in alone]


@given(st.data())
def test_what_later_groups_keep_does_not_matter_to_an_interval(data: st.DataObject) -> None:
    projector = data.draw(projectors())
    assume(len(projector.units) > 1)
    group = data.draw(st.integers(0, len(projector.units) - 2))
    low, high = projector.floor.copy(), projector.units.copy()
    low[: group + 1] = high[: group + 1] = projector.floor[: group + 1]
    assert [x.tolist() for x in projector.interval(low, group)] == [x.tolist() for x in projector.interval(high, group)]


def test_units_snap_to_the_nearest_level() -> None:
    structure = on_multiples(structure_of("digits_net"), 3)
    projector = Projector(structure, budget_of(structure, fraction=0.5))
    assert projector.levels[0].tolist() == [3, 6, 9, 12, 15, 16]
    assert projector.snap(np.array([0.0, 4.4, 4.6, 15.4, 15.6, 40.0]), 0).tolist() == [3, 3, 6, 15, 16, 16]
    assert projector.snap(np.array(7.0), 0) == 6


def test_the_next_level_of_a_whole_group_is_its_last() -> None:
    structure = on_multiples(structure_of("digits_net"), 3)
    projector = Projector(structure, budget_of(structure, fraction=0.5))
    assert projector.next_levels(structure.floor).tolist() == [6] * len(structure.units)
    assert projector.next_levels(structure.units).tolist() == structure.units.tolist()
    between = np.stack([structure.floor + 1, structure.units - 1])
    assert projector.next_levels(between).tolist() == [[6] * len(structure.units), structure.units.tolist()]


@pytest.mark.parametrize("value", [0.0, -0.5, np.nan, np.inf])
def test_wishes_that_are_no_density_are_refused(value: float) -> None:
    structure = structure_of("residual")
    with pytest.raises(ValueError, match=rf"densities.*\[{value}\]"):
        Projector(structure, budget_of(structure, fraction=0.5)).project(np.array([0.5, value]))


@given(st.data())
def test_a_cost_that_is_not_bilinear_is_projected_onto_in_the_same_way(data: st.DataObject) -> None:
    projector = data.draw(projectors())
    wish = data.draw(wishes(projector))
    groups = [
        Group(str(at), "channel", int(levels[-1]), (), tuple(levels)) for at, levels in enumerate(projector.levels)
    ]
    hidden = replace(projector.budget, cost=Hidden(projector.budget.cost))
    assert Projector(Structure(tuple(groups), ()), hidden).project(wish).tolist() == projector.project(wish).tolist()


def test_a_wish_beyond_all_scales_is_still_met() -> None:
    structure = structure_of("resnet20")
    projector = Projector(structure, budget_of(structure, fraction=0.5))
    wish = np.full(len(structure.units), 1e-300)
    wish[3] = 1.0
    kept = projector.project(wish)
    assert projector.budget.cost(kept) <= projector.budget.limit
    assert kept[3] == structure.units[3]


def _walk(projector: Projector, choose) -> IntArray:  # type: ignore[no-untyped-def]
    kept = projector.units.copy()
    for group, levels in enumerate(projector.levels):
        fewest, most = projector.interval(kept, group)
        assert fewest <= most
        assert {int(fewest), int(most)} <= set(levels.tolist())
        kept[group] = choose(levels[(levels >= fewest) & (levels <= most)].tolist())
    return kept
