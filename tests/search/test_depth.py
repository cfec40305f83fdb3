"""The least influential modules go, no more of them than the budget wants."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng

from autoprune.search import depth as block_influence
from autoprune.search.depth import least_influential_gone
from tests.search.toys import additive, depth, toy, weights


def influence(values: list[float]) -> dict[str, torch.Tensor]:
    return {f"b{index}": torch.tensor([value]) for index, value in enumerate(values)}


def test_those_that_change_least_go_first(tmp_path: Path) -> None:
    structure, projector = additive(*(depth(f"b{i}") for i in range(5)), prices=[10] * 5, limit=30)
    problem = toy(structure, projector, tmp_path, loss=sum, limit=9, scores=influence([0.9, 0.1, 0.5, 0.2, 0.8]))
    assert block_influence.search(problem, rng=default_rng(0)).kept == (1, 0, 1, 0, 1)
    assert problem.objective.spent == 1


def test_what_fits_again_comes_back_the_most_influential_first() -> None:
    structure, projector = additive(*(depth(f"b{i}") for i in range(4)), prices=[4, 3, 20, 30], limit=37)
    # b0, b1 and b2 go by influence; 7 are left once b2 is gone, which is what the other two cost
    kept = least_influential_gone(structure, projector, np.array([0.1, 0.2, 0.3, 0.4]))
    assert kept.tolist() == [1, 1, 0, 1]
    structure, projector = additive(*(depth(f"b{i}") for i in range(4)), prices=[4, 4, 20, 30], limit=37)
    assert least_influential_gone(structure, projector, np.array([0.1, 0.2, 0.3, 0.4])).tolist() == [0, 1, 0, 1]


def test_groups_of_other_kinds_stay_whole(tmp_path: Path) -> None:
    structure, projector = additive(weights("w", units=6), depth("b0"), depth("b1"), prices=[1, 5, 5], limit=11)
    problem = toy(structure, projector, tmp_path, loss=sum, limit=1, scores=influence([0.2, 0.1]))
    assert block_influence.search(problem, rng=default_rng(0)).kept == (6, 1, 0)


@given(st.data())
def test_the_budget_is_met_and_filled(data: st.DataObject) -> None:
    prices = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=8))
    values = data.draw(st.lists(st.floats(0, 1, width=32), min_size=len(prices), max_size=len(prices)))
    limit = data.draw(st.integers(0, sum(prices)))
    structure, projector = additive(*(depth(f"b{i}") for i in range(len(prices))), prices=prices, limit=limit)
    kept = least_influential_gone(structure, projector, np.array(values))
    left = limit - int(np.dot(kept, prices))
    assert left >= 0
    assert all(price > left for price, k in zip(prices, kept, strict=True) if k == 0)


def test_what_it_cannot_do_is_said(tmp_path: Path) -> None:
    plain, projector = additive(weights("w", units=6), prices=[1], limit=4)
    with pytest.raises(ValueError, match="no group of this structure is one"):
        block_influence.search(toy(plain, projector, tmp_path, loss=sum, limit=1), rng=default_rng(0))
    mixed, projector = additive(weights("w", units=6), depth("b0"), prices=[1, 5], limit=4)
    given = toy(mixed, projector, tmp_path, loss=sum, limit=1, scores=influence([0.5]))
    with pytest.raises(ValueError, match="without all 1 modules that can be passed over 6 are left"):
        block_influence.search(given, rng=default_rng(0))
    for scores, found in (({}, "none"), ({"b0": torch.ones(3)}, r"shape \(3,\)")):
        given = toy(mixed, projector, tmp_path, loss=sum, limit=1, scores=scores)
        with pytest.raises(ValueError, match=f"'b0' needs one score, its influence, and has {found}"):
            block_influence.search(given, rng=default_rng(0))
    assert given.objective.spent == 0
