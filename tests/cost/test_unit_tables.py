"""Costs of blocks of keys: exact shares of the square of the tokens, in every form in which a cost is asked for."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.cost.allocation import GenericAllocator, allocator_of
from autoprune.cost.model import QuadraticCost
from autoprune.cost.observed import NetworkCosts
from autoprune.cost.projection import Projector
from autoprune.cost.unit_tables import UnitTables, attention_pairs, pair_tables
from autoprune.structure.block_sparse import KeyBlocks
from autoprune.structure.groups import Pattern, Structure
from autoprune.structure.transformer import transformer_structure
from tests.cost.projectors import (
    EPISODES,
    Rows,
    assert_as_the_projector_says,
    plans_changed,
    projector_for,
    rows_of,
    structure_with,
    summed,
    targets_of,
)
from tests.language_models import EVERY_KIND, TINY

patterns = st.builds(
    Pattern, st.just("attention"), st.integers(2, 300), st.integers(1, 64), st.booleans(), st.integers(0, 99)
)


def structure_of(family: str, *kinds: str) -> Structure:
    return costs_of(family, *kinds).structure


@cache
def costs_of(family: str, *kinds: str) -> NetworkCosts:
    task = TINY[family]()
    return NetworkCosts(
        task.model, transformer_structure(task.model, task.example_input, prune=kinds), task.example_input
    )


@given(patterns)
def test_levels_take_their_share_of_the_square(pattern: Pattern) -> None:
    pairs, shown = attention_pairs(pattern), KeyBlocks.of(pattern).kept_pairs
    assert (pairs[0], pairs[-1]) == (0, pattern.tokens**2)
    assert (np.diff(pairs) > 0).all()
    for level, count in enumerate(shown.tolist()):
        exact = pattern.tokens**2 * count  # over what all blocks show, in Python's integers
        assert 0 <= int(pairs[level]) * int(shown[-1]) - exact < int(shown[-1])
    assert pattern.causal or pairs.tolist() == shown.tolist()


def test_the_longest_texts_do_not_overflow() -> None:
    pairs = attention_pairs(Pattern("attention", 2**17, 2**13, True, 0))
    assert (pairs[-1], len(pairs)) == (2**34, 17)
    assert (np.diff(pairs) > 0).all()


@pytest.mark.parametrize("family", EVERY_KIND)
def test_what_the_dense_network_costs_does_not_depend_on_the_kinds(family: str) -> None:
    units, plain = structure_of(family, "heads", "neurons").units, costs_of(family, "heads", "neurons")
    for kinds in (("keys:4",), ("heads", "keys:5"), ("keys:3", "blocks"), ("keys:4", "attention", "neurons")):
        costs = costs_of(family, *kinds)
        for name in ("macs", "params", "parameter_bytes"):
            assert getattr(costs, name)()(costs.structure.units) == getattr(plain, name)()(units)
    only, structure = costs_of(family, "keys:4"), structure_of(family, "keys:4")
    assert only.params()(structure.floor) == only.params()(structure.units)
    assert only.weights()(structure.units) == 0  # no group takes any
    assert only.params().tables is None


def test_known_costs() -> None:
    """Counted by hand: attentions of 4 heads of 8 on 16 tokens in blocks of 4; one of them keeps 2 blocks of keys."""
    structure = structure_of("llama", "keys:4")
    cost, square = costs_of("llama", "keys:4").macs(), 16 * 16
    shown = 4 * 10 + 3 * 16  # every block's own triangle, and all but the first see the block before
    two = np.array([2, 4, 4])
    assert cost(structure.units) - cost(two) == 2 * 32 * (square - -(-square * shown // 136))


def test_groups_without_patterns_need_no_tables() -> None:
    structure = structure_of("llama", "heads", "neurons")
    assert pair_tables(structure) is None
    assert costs_of("llama", "heads", "neurons").macs().tables is None


@st.composite
def tabled(draw: st.DrawFn) -> tuple[Projector, Rows]:
    """Any levels and layers, some of whose groups count as any numbers that never fall."""
    groups = draw(st.integers(1, 4))
    levels = [tuple(sorted(draw(st.sets(st.integers(1, 12), min_size=1, max_size=6)))) for _ in range(groups)]
    layers = draw(st.integers(1, 4))
    size = layers * (groups + 1)
    table = st.lists(st.integers(0, 2), min_size=size, max_size=size).map(lambda v: np.reshape(v, (layers, groups + 1)))
    looked_up = sorted(draw(st.sets(st.integers(0, groups - 1), min_size=1)))
    steps = [draw(st.lists(st.integers(0, 9), min_size=12, max_size=12)) for _ in looked_up]
    values = np.concatenate([np.zeros((len(looked_up), 1), np.int64), np.cumsum(steps, axis=1)], axis=1)
    outputs, inputs = draw(table), draw(table)
    weight, alone = (np.array([draw(st.integers(0, 5)) for _ in range(layers)]) for _ in range(2))
    rows = rows_of(outputs, inputs, weight, alone, 3)
    cost = QuadraticCost.bilinear("made up", "units", *rows, tables=UnitTables(np.array(looked_up), values))
    return projector_for(structure_with(levels), cost, draw(st.floats(0, 1))), rows


@given(st.data())
def test_every_form_of_a_cost_with_tables_is_the_cost(data: st.DataObject) -> None:
    projector, rows = data.draw(tabled())
    cost = projector.budget.cost
    assert isinstance(cost, QuadraticCost)
    assert cost.tables is not None
    plans = np.array([[data.draw(st.integers(0, 12)) for _ in projector.units] for _ in range(2)])
    before = plans.copy()
    counted = plans.copy()
    for row, group in enumerate(cost.tables.groups):
        counted[:, group] = [cost.tables.values[row, k] for k in plans[:, group]]
    assert cost(plans).tolist() == summed(rows, counted).tolist()
    assert cost.changed(plans[0], plans[1]).tolist() == cost(plans_changed(plans[0], plans[1])).tolist()
    for group, levels in enumerate(projector.levels):
        each = np.repeat(plans[:, None], len(levels), axis=1)
        each[..., group] = levels
        assert cost.along(plans, group, levels).tolist() == cost(each).tolist()
    assert np.array_equal(plans, before), "plans are not written to"


@given(st.data())
def test_allocators_over_costs_with_tables_are_generic_and_the_projectors(data: st.DataObject) -> None:
    projector, _ = data.draw(tabled())
    allocator = allocator_of(projector, episodes=EPISODES)
    assert isinstance(allocator, GenericAllocator)
    assert_as_the_projector_says(projector, allocator, data.draw(targets_of(projector)))


@given(st.data())
def test_plans_of_key_blocks_fill_their_budget(data: st.DataObject) -> None:
    costs = costs_of(data.draw(st.sampled_from(["llama", "bert"])), "heads", "keys:2", "neurons")
    structure = costs.structure
    projector = projector_for(structure, costs.macs(), data.draw(st.floats(0, 1)))
    wish = np.array([data.draw(st.floats(0.01, 1)) for _ in structure.groups])
    kept = projector.project(wish)
    cost, limit = projector.budget.cost, projector.budget.limit
    assert cost(kept) <= limit
    following = projector.next_levels(kept)
    for group in np.flatnonzero(following > kept):
        more = kept.copy()
        more[group] = following[group]
        assert cost(more) > limit
