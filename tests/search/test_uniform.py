"""Uniform is uniform: in density, and where a module is whole or gone, in depth."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.cost.projection import Projector
from autoprune.prior.uniform_plan import evenly_spaced, uniform_plan, uniform_target
from tests.cost.projectors import projectors
from tests.search.toys import additive, depth, structure_on, weights


@given(projectors())
def test_uniform_is_the_projection_of_an_equal_wish(projector: Projector) -> None:
    structure = structure_on(projector)
    assert uniform_plan(structure, projector).kept == tuple(projector.project(np.ones(len(projector.units))).tolist())


@pytest.mark.parametrize(("stay", "gone"), [(11, {6}), (9, {3, 6, 9}), (8, {1, 3, 6, 9}), (6, {1, 3, 4, 6, 7, 9})])
def test_blocks_go_evenly_spaced(stay: int, gone: set[int]) -> None:
    structure, projector = additive(*(depth(f"b{i}") for i in range(12)), prices=[5] * 12, limit=5 * stay)
    kept = np.array(uniform_plan(structure, projector).kept)
    assert set(np.flatnonzero(kept == 0).tolist()) == gone


@given(st.integers(1, 70), st.data())
def test_however_many_are_taken_they_are_evenly_spaced(count: int, data: st.DataObject) -> None:
    order = list(evenly_spaced(count))
    assert sorted(order) == list(range(count))
    taken = order[: data.draw(st.integers(1, count))]
    for start, stop in itertools.combinations(range(count + 1), 2):
        share = sum(start <= place < stop for place in taken)
        assert abs(share - len(taken) * (stop - start) / count) <= 1 + np.log2(count + 1)


def test_of_each_kind_of_blocks_and_of_widths_the_same_share_stays() -> None:
    kinds = [depth(f"a{i}", "zeros, None") for i in range(6)] + [depth(f"f{i}", "zeros") for i in range(6)]
    widths = [weights(f"w{i}", units=30) for i in range(4)]
    structure, projector = additive(*kinds, *widths, prices=[10] * 6 + [20] * 6 + [3] * 4, limit=270)
    kept = np.array(uniform_plan(structure, projector).kept)
    assert (kept[:6].sum(), kept[6:12].sum()) == (3, 3)
    assert kept[12:].tolist() == [15] * 4
    assert uniform_target(structure)[12:].tolist() == [1.0] * 4
