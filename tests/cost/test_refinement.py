"""A step of a cost is not paid for where its price buys more elsewhere."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autoprune.cost.budget import Budget
from autoprune.cost.projection import Projector, below_step
from tests.cost.projectors import structure_with
from tests.cost.stairs import TableCost, assert_filled, staircases
from tests.models import PRUNABLE

JUMP = np.array([0, 1, 2, 3, 4, 9, 10, 11, 12.0])  # a unit costs 1, and the fifth one 5


def two_groups(limit: float) -> Projector:
    cost, structure = TableCost("time", JUMP[:, None] + 1.01 * JUMP[None]), structure_with([tuple(range(1, 9))] * 2)
    return Projector(structure, Budget("time", cost, limit, float(cost(structure.units))))


def test_the_step_below_is_found() -> None:
    cost, levels = TableCost("time", JUMP), np.arange(1, 9)
    found = [below_step(cost, np.array([kept]), 0, levels) for kept in levels]
    assert found[:4] == [None] * 4
    assert found[4] == 4
    assert found[-1] is None, "what is far above a step is worth it"


def test_a_group_just_above_a_step_goes_down_where_that_buys_more() -> None:
    """The step that one unit pays for lets the other group, of which more is wished for, go up four units."""
    projector = two_groups(13.5)
    kept = projector.refined(np.array([5, 1]), np.array([5.0, 8.0]))
    assert kept.tolist() == [4, 5]
    assert_filled(projector, kept)


def test_a_group_that_wants_its_units_most_keeps_them() -> None:
    projector = two_groups(13.5)
    assert projector.refined(np.array([5, 4]), np.array([8.0, 1.0])).tolist() == [5, 4]


@given(st.data())
def test_refining_ends_in_a_filled_plan_and_changes_it_no_more(data: st.DataObject) -> None:
    projector = data.draw(staircases())
    target = np.array([data.draw(st.floats(0, 5)) for _ in projector.units])
    kept = projector.refined(projector.fill(projector.floor, target), target)
    assert_filled(projector, kept)
    assert projector.refined(kept, target).tolist() == kept.tolist()


@given(st.data())
def test_macs_have_no_steps(data: st.DataObject) -> None:
    network = PRUNABLE[data.draw(st.sampled_from(["residual", "dense", "grouped", "digits_net"]))]
    structure, macs = network.structure(), network.costs().macs()
    kept = np.array([data.draw(st.integers(1, n)) for n in structure.units.tolist()])
    for group, members in enumerate(structure.groups):
        assert below_step(macs, kept, group, np.array(members.levels)) is None
