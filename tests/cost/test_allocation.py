"""An allocator says what the projector says, group by group: to the unit, for any cost, network and budget."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.cost.allocation import GenericAllocator, QuadraticAllocator, allocator_of
from autoprune.cost.model import QuadraticCost
from autoprune.cost.projection import Projector
from tests.cost.projectors import (
    EPISODES,
    Rows,
    Stairs,
    assert_as_the_projector_says,
    plans_changed,
    projector_for,
    projectors,
    rows_of,
    structure_with,
    summed,
    targets_of,
)


@st.composite
def bilinear_projectors(draw: st.DrawFn) -> tuple[Projector, Rows]:
    """Any levels, any layers: groups that meet themselves, each other or nothing, at any scale up to ResNet-152's."""
    groups = draw(st.integers(1, 5))
    levels = [tuple(sorted(draw(st.sets(st.integers(1, 40), min_size=1, max_size=12)))) for _ in range(groups)]
    layers = draw(st.integers(1, 6))
    size = layers * (groups + 1)
    table = st.lists(st.integers(0, 2), min_size=size, max_size=size).map(lambda v: np.reshape(v, (layers, groups + 1)))
    outputs, inputs = draw(table), draw(table)
    scale = draw(st.sampled_from([1, 9, 10**6, 10**9]))
    weight = np.array([draw(st.integers(0, 5)) for _ in range(layers)]) * scale + draw(st.integers(0, 3))
    per_output = np.array([draw(st.integers(0, 5)) for _ in range(layers)])
    rows = rows_of(outputs, inputs, weight, per_output, draw(st.integers(0, 50)))
    cost = QuadraticCost.bilinear("made up", "units", *rows)
    fraction = draw(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1)))
    return projector_for(structure_with(levels), cost, fraction, past=draw(st.sampled_from([0.0, 0.5]))), rows


@given(st.data())
def test_allocators_over_networks_are_the_projectors(data: st.DataObject) -> None:
    projector = data.draw(projectors())
    allocator = allocator_of(projector, episodes=EPISODES)
    assert isinstance(allocator, QuadraticAllocator)
    assert_as_the_projector_says(projector, allocator, data.draw(targets_of(projector)))


@given(st.data())
def test_allocators_over_made_up_costs_are_the_projectors(data: st.DataObject) -> None:
    projector, _ = data.draw(bilinear_projectors())
    allocator = allocator_of(projector, episodes=EPISODES)
    for _ in range(2):
        assert_as_the_projector_says(projector, allocator, data.draw(targets_of(projector)))
        allocator.restart()


@given(st.data())
def test_allocators_over_other_costs_are_the_projectors(data: st.DataObject) -> None:
    levels = [
        tuple(range(data.draw(st.integers(1, 3)), n + 1))
        for n in data.draw(st.lists(st.integers(3, 20), min_size=1, max_size=4))
    ]
    projector = projector_for(structure_with(levels), Stairs(), data.draw(st.floats(0, 1)), past=0.125)
    allocator = allocator_of(projector, episodes=EPISODES)
    assert isinstance(allocator, GenericAllocator)
    assert_as_the_projector_says(projector, allocator, data.draw(targets_of(projector)))


@given(st.data())
def test_a_quadratic_cost_is_the_sum_of_its_rows(data: st.DataObject) -> None:
    projector, rows = data.draw(bilinear_projectors())
    cost = projector.budget.cost
    assert isinstance(cost, QuadraticCost)
    plans = np.array([[data.draw(st.integers(0, 50)) for _ in projector.units] for _ in range(2)])
    assert cost(plans).tolist() == summed(rows, plans).tolist()
    assert cost.changed(plans[0], plans[1]).tolist() == summed(rows, plans_changed(plans[0], plans[1])).tolist()
    for group, levels in enumerate(projector.levels):
        each = np.repeat(plans[:, None], len(levels), axis=1)
        each[..., group] = levels
        assert cost.along(plans, group, levels).tolist() == summed(rows, each).tolist()


def bilinear(outputs: list[list[int]], inputs: list[list[int]]) -> QuadraticCost:
    return QuadraticCost.bilinear(
        "made up", "units", np.array(outputs), np.array(inputs), np.ones(len(outputs), np.int64)
    )


@pytest.mark.parametrize(
    ("cost", "why"),
    [
        (bilinear([[1, 0, 0]], [[0, 0, 3]]), "the second group costs nothing"),
        (bilinear([[1, 0, 0], [0, 1, 0]], [[0, -1, 30], [0, 0, 9]]), "more units may cost less"),
    ],
)
def test_costs_without_roots_are_probed(cost: QuadraticCost, why: str) -> None:
    structure = structure_with([tuple(range(1, 9))] * 2)
    assert isinstance(allocator_of(projector_for(structure, cost, 0.5), episodes=1), GenericAllocator), why


def test_a_step_looks_only_at_the_groups_it_meets() -> None:
    """200 groups in a chain: each step reads one decided group and the constants, whatever their number."""
    allocator = allocator_of(chain(200), episodes=1)
    assert isinstance(allocator, QuadraticAllocator)
    assert [len(step.earlier) for step in allocator._steps] == [1] + [2] * 199


def chain(groups: int) -> Projector:
    """Layers of 16 units, each reading the one before it, at half of the dense cost."""
    here, before = np.eye(groups, groups + 1, dtype=np.int64), np.eye(groups, groups + 1, -1, dtype=np.int64)
    before[0, -1] = 3
    cost = QuadraticCost.bilinear("macs", "MACs", here, before, np.full(groups, 900))
    return projector_for(structure_with([tuple(range(1, 17))] * groups), cost, 0.5)


@pytest.mark.parametrize("cost", ["quadratic", "generic"])
def test_targets_that_are_no_number_are_refused(cost: str) -> None:
    projector = chain(3) if cost == "quadratic" else projector_for(structure_with([(1, 2, 3)]), Stairs(), 0.5)
    with pytest.raises(ValueError, match=r"targets.*\[ 1. nan\]"):
        allocator_of(projector, episodes=2).decide(np.array([1.0, np.nan]))


def test_no_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one episode is needed, got 0"):
        allocator_of(chain(2), episodes=0)
