"""A walk says what the projector says, group by group: to the unit and for any cost, network, budget and wish."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.cost.allocation import (
    BatchAllocator,
    GenericAllocator,
    GenericBatchAllocator,
    SequentialAllocator,
    allocator_of,
    batch_allocator_of,
)
from autoprune.cost.budget import Budget
from autoprune.cost.group_steps import group_steps_of
from autoprune.cost.model import BilinearCost, CostModel, FloatArray
from autoprune.cost.projection import Projector
from autoprune.cost.quadratic_allocation import QuadraticAllocator, QuadraticBatchAllocator
from autoprune.cost.quadratic_view import quadratic_cost_view
from autoprune.structure.groups import Group, IntArray, Structure
from tests.cost.test_projection import assert_tight, projectors

EPISODES = 3


def structure_with(levels: list[tuple[int, ...]]) -> Structure:
    """Groups without layers: a made-up cost does not ask for them."""
    return Structure(tuple(Group(f"group{i}", "channel", each[-1], (), each) for i, each in enumerate(levels)), ())


def projector_for(structure: Structure, cost: CostModel, fraction: float, *, past: float = 0.0) -> Projector:
    """The budget lies at `fraction` between the cheapest plan and the dense network, `past` beyond a whole number."""
    least, dense = float(cost(structure.floor)), float(cost(structure.units))
    limit = np.floor(least + fraction * (dense - least)) + past
    return Projector(structure, Budget("by hand", cost, float(np.clip(limit, least, dense)), dense))


@st.composite
def bilinear_projectors(draw: st.DrawFn) -> Projector:
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
    cost = BilinearCost("made up", "units", outputs, inputs, weight, per_output, draw(st.integers(0, 50)))
    fraction = draw(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1)))
    return projector_for(structure_with(levels), cost, fraction, past=draw(st.sampled_from([0.0, 0.5])))


@dataclass(frozen=True)
class Stairs:
    """A made-up latency: every group runs in tiles of 4 units, and the two neighbours of a layer share one."""

    name: str = "stairs"
    unit: str = "ms"

    def __call__(self, kept: IntArray) -> FloatArray:
        tiles = -(-np.asarray(kept) // 4)
        return 0.25 * tiles.sum(axis=-1) + 0.125 * (tiles[..., 1:] * tiles[..., :-1]).sum(axis=-1)

    def along(self, kept: IntArray, group: int, levels: IntArray) -> FloatArray:
        plans = np.repeat(np.asarray(kept)[..., None, :], len(levels), axis=-2)
        plans[..., group] = levels
        return self(plans)


def wishes(projector: Projector) -> st.SearchStrategy[FloatArray]:
    """[groups, episodes] in units, some outside of what a group has."""
    groups = len(projector.units)
    values = st.lists(st.floats(-0.5, 1.5), min_size=groups * EPISODES, max_size=groups * EPISODES)
    return values.map(lambda v: np.array(v).reshape(groups, EPISODES) * projector.units[:, None])


def assert_as_the_projector_says(
    projector: Projector, walks: BatchAllocator, walk: SequentialAllocator, wish: FloatArray
) -> None:
    """BatchAllocator all episodes; `walk` walks the first one."""
    kept = np.tile(projector.units, (EPISODES, 1))
    cost, groups = projector.budget.cost, len(projector.units)
    for group in range(groups):
        assert walks.group == walk.group == group
        least, most = projector.interval(kept, group)
        assert walks.interval.tolist() == [least.tolist(), most.tolist()]
        assert walk.interval == (least[0], most[0])
        later = np.arange(groups) >= group
        extremes = [cost(np.where(later, ends, kept)) for ends in (projector.floor, projector.units)]
        assert walks.costs.tolist() == [extreme.tolist() for extreme in extremes]
        assert walk.costs == (extremes[0][0], extremes[1][0])
        kept[:, group] = projector.snap(np.clip(wish[group], least, most), group)
        assert walks.decide(wish[group]).tolist() == kept[:, group].tolist()
        assert walk.decide(float(wish[group, 0])) == kept[0, group]
    assert walks.group == walk.group == groups
    assert walks.kept.tolist() == kept.tolist()
    assert walk.kept == kept[0].tolist()
    assert walks.costs.tolist() == [cost(kept).tolist()] * 2
    assert walk.costs == (cost(kept)[0],) * 2
    for plan in kept:
        assert_tight(projector, plan)


@given(st.data())
def test_walks_over_networks_are_the_projectors(data: st.DataObject) -> None:
    projector = data.draw(projectors())
    walks, walk = batch_allocator_of(projector, episodes=EPISODES), allocator_of(projector)
    assert isinstance(walks, QuadraticBatchAllocator)
    assert isinstance(walk, QuadraticAllocator)
    assert_as_the_projector_says(projector, walks, walk, data.draw(wishes(projector)))


@settings(max_examples=100)
@given(st.data())
def test_walks_over_made_up_costs_are_the_projectors(data: st.DataObject) -> None:
    projector = data.draw(bilinear_projectors())
    walks, walk = batch_allocator_of(projector, episodes=EPISODES), allocator_of(projector)
    for _ in range(2):
        assert_as_the_projector_says(projector, walks, walk, data.draw(wishes(projector)))
        walks.restart()
        walk.restart()


@given(st.data())
def test_walks_over_other_costs_are_the_projectors(data: st.DataObject) -> None:
    levels = [
        tuple(range(data.draw(st.integers(1, 3)), n + 1))
        for n in data.draw(st.lists(st.integers(3, 20), min_size=1, max_size=4))
    ]
    projector = projector_for(structure_with(levels), Stairs(), data.draw(st.floats(0, 1)), past=0.125)
    walks, walk = batch_allocator_of(projector, episodes=EPISODES), allocator_of(projector)
    assert isinstance(walks, GenericBatchAllocator)
    assert isinstance(walk, GenericAllocator)
    assert_as_the_projector_says(projector, walks, walk, data.draw(wishes(projector)))


@given(st.data())
def test_the_quadratic_form_is_the_cost(data: st.DataObject) -> None:
    projector = data.draw(bilinear_projectors())
    cost = projector.budget.cost
    assert isinstance(cost, BilinearCost)
    plans = np.array([[data.draw(st.integers(0, 50)) for _ in projector.units] for _ in range(2)])
    form = quadratic_cost_view(cost)
    assert form(plans).tolist() == cost(plans).tolist()
    changed = np.repeat(plans[:1], len(projector.units), axis=0)
    np.fill_diagonal(changed, plans[1])
    assert form.changed(plans[0], plans[1]).tolist() == cost(changed).tolist()


def bilinear(outputs: list[list[int]], inputs: list[list[int]], *, per_output: list[int]) -> BilinearCost:
    return BilinearCost(
        "made up", "units", np.array(outputs), np.array(inputs), np.ones(len(outputs), np.int64), np.array(per_output)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("cost", "why"),
    [
        (bilinear([[1, 0, 0]], [[0, 0, 3]], per_output=[0]), "the second group costs nothing"),
        (bilinear([[1, 0, 0], [0, 1, 0]], [[0, -1, 30], [0, 0, 9]], per_output=[0, 0]), "more units may cost less"),
    ],
)
def test_costs_without_roots_are_probed(cost: BilinearCost, why: str) -> None:
    structure = structure_with([tuple(range(1, 9))] * 2)
    assert isinstance(allocator_of(projector_for(structure, cost, 0.5)), GenericAllocator), why


def test_a_step_looks_only_at_the_groups_it_meets() -> None:
    """200 groups in a chain: each step reads one decided group, whatever their number."""
    turns = group_steps_of(chain(200)).groups
    assert [len(turn.earlier) for turn in turns] == [0] + [1] * 199


def chain(groups: int) -> Projector:
    """Layers of 16 units, each reading the one before it, at half of the dense cost."""
    here, before = np.eye(groups, groups + 1, dtype=np.int64), np.eye(groups, groups + 1, -1, dtype=np.int64)
    before[0, -1] = 3
    cost = BilinearCost("macs", "MACs", here, before, np.full(groups, 900), np.zeros(groups, np.int64))
    return projector_for(structure_with([tuple(range(1, 17))] * groups), cost, 0.5)


@pytest.mark.parametrize("cost", ["quadratic", "probed"])
def test_wishes_that_are_no_number_are_refused(cost: str) -> None:
    projector = chain(3) if cost == "quadratic" else projector_for(structure_with([(1, 2, 3)]), Stairs(), 0.5)
    with pytest.raises(ValueError, match="a wish must be a number of units, got nan"):
        allocator_of(projector).decide(float("nan"))
    with pytest.raises(ValueError, match=r"wishes must be numbers of units, got \[ 1. nan\]"):
        batch_allocator_of(projector, episodes=2).decide(np.array([1.0, np.nan]))


def test_no_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one episode is needed, got 0"):
        batch_allocator_of(chain(2), episodes=0)


def test_a_cost_of_another_kind_has_no_turns() -> None:
    with pytest.raises(TypeError, match="'stairs' is no BilinearCost"):
        group_steps_of(projector_for(structure_with([(1, 2, 3)]), Stairs(), 0.5))
