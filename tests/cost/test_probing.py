"""Sizes that follow a rule are found by a few copies, whatever the rule; the others are not called found."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autoprune.cost.probing import MISSING, SizeFunction, probe
from autoprune.structure.groups import Group, IntArray, Skip, Structure
from tests.cost.projectors import structure_with


@st.composite
def structures(draw: st.DrawFn) -> Structure:
    levels = [
        (*sorted(draw(st.sets(st.integers(1, units - 1), min_size=1, max_size=4))), units)
        for units in draw(st.lists(st.integers(2, 30), min_size=1, max_size=9))
    ]
    return structure_with(levels)


def table(draw: st.DrawFn, groups: int, *, most: int) -> IntArray:
    touched = draw(st.sets(st.integers(0, groups - 1), max_size=most))
    row = np.zeros(groups + 1, np.int64)
    row[list(touched)] = [draw(st.integers(1, 5)) for _ in touched]
    row[-1] = draw(st.integers(0 if touched else 1, 7))
    return row


@given(st.data())
def test_sums_and_products_of_single_groups_are_found(data: st.DataObject) -> None:
    structure = data.draw(structures())
    groups = len(structure.groups)
    rows = [[table(data.draw, groups, most=groups)] for _ in range(data.draw(st.integers(1, 5)))]
    for _ in range(data.draw(st.integers(0, 3))):
        chosen = data.draw(st.sets(st.integers(0, groups - 1), max_size=3))
        rows.append([data.draw(st.integers(1, 4)) * np.eye(groups + 1, dtype=np.int64)[group] for group in chosen])
    copies: list[IntArray] = []

    def sizes_of(kept: IntArray) -> IntArray:
        copies.append(kept)
        return np.array([np.prod([int(each[:-1] @ kept + each[-1]) for each in row], dtype=np.int64) for row in rows])

    functions = probe(structure, sizes_of)
    assert len(copies) <= 5 + groups.bit_length() + groups
    plans = np.array([[data.draw(st.integers(1, n)) for n in structure.units.tolist()] for _ in range(3)])
    for kept, sizes in zip(plans, map(sizes_of, plans), strict=True):
        for function, size in zip(functions, sizes, strict=True):
            assert function is not None
            assert function(kept) == size


@given(st.integers(1, 200))
def test_where_groups_do_not_meet_copies_are_few(groups: int) -> None:
    """A chain: each layer's outputs are one group's."""
    copies: list[IntArray] = []

    def sizes_of(kept: IntArray) -> IntArray:
        copies.append(kept)
        return 3 * kept

    functions = probe(structure_with([(4, 7, 8)] * groups), sizes_of)
    assert all(function is not None and len(function.tables) == 1 for function in functions)
    assert len(copies) <= 1 + 1 + max(1, (groups - 1).bit_length()) + 2


def test_sizes_without_a_rule_are_none() -> None:
    structure = structure_with([tuple(range(1, 17))] * 2)

    def sizes_of(kept: IntArray) -> IntArray:
        whole = (kept == 16).all()
        return np.array([kept[0] ** 2, kept[0] * kept[1] + 7, -1 if kept[1] < 16 else 5, 4 + 3 * whole, kept[0]])

    assert [function is None for function in probe(structure, sizes_of)] == [True, True, True, True, False]


def test_a_size_that_a_narrow_copy_lacks_is_found_where_it_is_optional() -> None:
    structure = structure_with([tuple(range(1, 17))] * 2)
    kept_least: list[int] = []

    def sizes_of(kept: IntArray) -> IntArray:
        kept_least.append(int(kept.min()))
        return np.array([3 * kept[0] if kept.min() > 12 else MISSING])

    assert probe(structure, sizes_of) == [None]
    assert min(kept_least) <= 12
    assert probe(structure, sizes_of, optional=True) == [SizeFunction(3, ((1, 0, 0),))]


def test_groups_that_pass_modules_over_stay_whole() -> None:
    structure = structure_with([(3, 4), (0, 1)])
    first, skipped = structure.groups
    skipped = Group("skip", "block", 1, (), (0, 1), skips=(Skip("block", "input"),))
    functions = probe(Structure((first, skipped), ()), lambda kept: np.array([kept[0]]) if kept[1] else np.array([99]))
    assert functions == [SizeFunction(1, ((1, 0, 0),))]


def test_a_group_with_one_level_stays_whole() -> None:
    functions = probe(structure_with([(8,), (3, 4)]), lambda kept: np.array([kept[0], kept[1]]))
    assert functions == [SizeFunction(8), SizeFunction(1, ((0, 1, 0),))]


def test_a_product_of_sizes_is_one_size() -> None:
    product = SizeFunction(2, ((1, 0, 3),)) * SizeFunction(5, ((0, 1, 0),))
    assert product(np.array([[4, 6], [1, 1]])).tolist() == [2 * 7 * 5 * 6, 2 * 4 * 5]
