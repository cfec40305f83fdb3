"""Whatever costs are, how many there are, and where they fall: every plan is inside every budget, and tight."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autoprune.cost.allocation import allocator_of
from autoprune.cost.budget import Budget
from autoprune.cost.cheapest import cheapest_plan
from autoprune.cost.combined import TightestShare
from autoprune.cost.projection import Projector
from tests.cost.projectors import structure_with
from tests.cost.stairs import TableCost, assert_filled, meets_all, raised, staircases, together

EPISODES = 3


@given(st.data())
def test_projected_plans_are_inside_every_budget_and_filled(data: st.DataObject) -> None:
    projector = data.draw(staircases())
    wish = np.array([data.draw(st.floats(1e-3, 1)) for _ in projector.units])
    kept = projector.project(wish)
    assert_filled(projector, kept)
    both = projector.project(np.stack([wish, wish[::-1]]))
    assert both[0].tolist() == kept.tolist()


@given(st.data())
def test_walks_end_inside_every_budget_with_nothing_left_for_the_last_group(data: st.DataObject) -> None:
    """The last group that is not whole could not keep any more, unless the budget is used up to the last bit."""
    projector = data.draw(staircases())
    allocator = allocator_of(projector, episodes=EPISODES)
    for units in projector.units:
        wish = np.array([data.draw(st.floats(-0.5, 1.5)) for _ in range(EPISODES)]) * units
        least, most = allocator.interval
        kept = allocator.decide(wish)
        assert (least <= kept).all()
        assert (kept <= most).all()
    for kept in allocator.kept:
        assert meets_all(projector, kept)
        open_groups = np.flatnonzero(kept < projector.units)
        if len(open_groups) and projector.budget.cost(kept) < projector.budget.limit:
            assert not any(meets_all(projector, more) for more in raised(projector, kept, int(open_groups[-1])))


@given(st.data())
def test_filling_keeps_what_it_is_given(data: st.DataObject) -> None:
    projector = data.draw(staircases())
    target = np.array([data.draw(st.floats(0, 5)) for _ in projector.units])
    kept = projector.fill(projector.floor, target)
    assert (kept >= projector.floor).all()
    assert_filled(projector, kept)


@given(st.data())
def test_costs_that_never_fall_are_projected_onto_as_if_it_were_known(data: st.DataObject) -> None:
    """What is asked more of a cost that might fall finds nothing more where it does not."""
    projector = data.draw(staircases(monotone=True))
    wish = np.array([data.draw(st.floats(1e-3, 1)) for _ in projector.units])
    structure = structure_with([tuple(levels.tolist()) for levels in projector.levels])
    bounds = [replace(bound, cost=ReplaySeed(bound.cost.name, bound.cost.table)) for bound in projector.budget.bounds]
    known = Projector(structure, together(bounds, structure))
    assert known.never_falls
    assert not projector.never_falls
    assert projector.project(wish).tolist() == known.project(wish).tolist()
    assert projector.floor.tolist() == known.floor.tolist()


class ReplaySeed(TableCost):
    never_falls = True
    smooth = False


def single(table: list[float], limit: float, *, levels: tuple[int, ...]) -> Projector:
    cost, structure = TableCost("time", np.array(table, np.float64)), structure_with([levels])
    return Projector(structure, Budget("time", cost, limit, float(cost(structure.units))))


def test_a_wider_layer_that_is_faster_is_taken() -> None:
    """Keeping 4 is cheaper than 3, and both than nothing less: whatever is wished for, 4 are kept."""
    projector = single([9, 2, 3, 8, 4, 9], 5, levels=(1, 2, 3, 4, 5))
    for wish in (0.01, 0.4, 0.6, 1.0):
        assert projector.project(np.array([wish])).tolist() == [4]
    assert [int(end) for end in projector.interval(np.array([5]), 0)] == [4, 4]


def test_where_the_floor_costs_too_much_the_cheapest_plan_stands_in() -> None:
    projector = single([0, 9, 9, 2, 5, 12], 5, levels=(1, 2, 3, 4, 5))
    assert projector.floor.tolist() == [3]
    assert projector.project(np.array([0.01])).tolist() == [4]


def test_an_episode_passes_over_the_levels_that_cost_too_much() -> None:
    """Of 1 to 5 units, 2 and 3 cost too much; wishes for them become the nearest that does not."""
    cost = TableCost("time", np.array([[9, 1, 8, 8, 2, 9]] * 2, np.float64).T + np.array([0, 3.0]))
    structure = structure_with([(1, 2, 3, 4, 5), (0, 1)])
    projector = Projector(structure, Budget("time", cost, 4.0, 12.0))
    assert projector.choices(structure.units, 0).tolist() == [True, False, False, True, False]
    for wish, kept in ((0.0, 1), (2.0, 1), (2.5, 1), (2.6, 4), (5.0, 4)):
        assert allocator_of(projector, episodes=1).decide(np.array([wish])) == kept
    wider = Projector(structure, Budget("time", cost, 5.0, 12.0))  # 4 and the other group whole: all that there is
    assert wider.choices(structure.units, 0).tolist() == [False, False, False, True, False]


def test_of_two_costs_each_descent_alone_would_exceed_the_other() -> None:
    """Fast where it is large and small where it is slow: only the middle meets both."""
    time, space = TableCost("time", np.array([0, 9, 4, 1.0])), TableCost("space", np.array([0, 1, 4, 9.0]), "bytes")
    levels = [np.array([1, 2, 3])]
    assert cheapest_plan(time, levels).tolist() == [3]
    assert cheapest_plan(space, levels).tolist() == [1]
    assert cheapest_plan(TightestShare((time, space), (5.0, 5.0)), levels).tolist() == [2]
