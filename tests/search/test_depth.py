"""The least influential modules go, no more of them than the budget wants."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng

from autoprune.prior.influence_plans import Order, least_influential_gone
from autoprune.prior.starts import first_plan
from autoprune.search import depth as block_influence
from tests.search.toys import additive, depth, toy, weights


def influence(values: list[float]) -> dict[str, torch.Tensor]:
    return {f"b{index}": torch.tensor([value]) for index, value in enumerate(values)}


def test_those_that_change_least_go_first(tmp_path: Path) -> None:
    structure, projector = additive(*(depth(f"b{i}") for i in range(5)), prices=[10] * 5, limit=30)
    problem = toy(structure, projector, tmp_path, loss=sum, limit=9, scores=influence([0.9, 0.1, 0.5, 0.2, 0.8]))
    assert block_influence.search(problem, rng=default_rng(0), order="influence").kept == (1, 0, 1, 0, 1)
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
    assert block_influence.search(problem, rng=default_rng(0), order="influence").kept == (6, 1, 0)


@given(st.data())
def test_the_budget_is_met_and_filled(data: st.DataObject) -> None:
    prices = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=8))
    values = data.draw(st.lists(st.floats(0, 1, width=32), min_size=len(prices), max_size=len(prices)))
    limit = data.draw(st.integers(0, sum(prices)))
    structure, projector = additive(*(depth(f"b{i}") for i in range(len(prices))), prices=prices, limit=limit)
    order: Order = data.draw(st.sampled_from(get_args(Order)))
    kept = least_influential_gone(structure, projector, np.array(values), order=order)
    left = limit - int(np.dot(kept, prices))
    assert left >= 0
    assert all(price > left for price, k in zip(prices, kept, strict=True) if k == 0)


def test_what_it_cannot_do_is_said(tmp_path: Path) -> None:
    plain, projector = additive(weights("w", units=6), prices=[1], limit=4)
    with pytest.raises(ValueError, match="no group of this structure is one"):
        block_influence.search(
            toy(plain, projector, tmp_path, loss=sum, limit=1), rng=default_rng(0), order="influence"
        )
    mixed, projector = additive(weights("w", units=6), depth("b0"), prices=[1, 5], limit=4)
    given = toy(mixed, projector, tmp_path, loss=sum, limit=1, scores=influence([0.5]))
    with pytest.raises(ValueError, match="without all 1 modules that can be passed over 6 are left"):
        block_influence.search(given, rng=default_rng(0), order="influence")
    for scores, found in (({}, "none"), ({"b0": torch.ones(3)}, r"shape \(3,\)")):
        given = toy(mixed, projector, tmp_path, loss=sum, limit=1, scores=scores)
        with pytest.raises(ValueError, match=rf"'b0'.*has {found}"):
            block_influence.search(given, rng=default_rng(0), order="influence")
    assert given.objective.spent == 0


def test_influence_for_what_is_saved() -> None:
    structure, projector = additive(*(depth(f"b{i}") for i in range(3)), prices=[10, 50, 20], limit=60)
    influence = np.array([0.1, 0.2, 0.15])  # the second saves five times what the first does, for twice its influence
    assert least_influential_gone(structure, projector, influence).tolist() == [1, 1, 0]
    assert least_influential_gone(structure, projector, influence, order="saved").tolist() == [1, 0, 1]


def test_a_run_goes_whole() -> None:
    structure, projector = additive(*(depth(f"b{i}") for i in range(6)), prices=[10] * 6, limit=30)
    influence = np.array([0.1, 0.9, 0.3, 0.3, 0.3, 0.2])
    assert least_influential_gone(structure, projector, influence).tolist() == [0, 1, 0, 1, 1, 0]
    assert least_influential_gone(structure, projector, influence, order="run").tolist() == [1, 1, 1, 0, 0, 0]


def test_searches_of_depth_begin_at_the_best_of_uniform_and_influence(tmp_path: Path) -> None:
    structure, projector = additive(*(depth(f"b{i}") for i in range(6)), prices=[10] * 6, limit=30)
    scores = influence([0.1, 0.2, 0.3, 0.9, 0.9, 0.9])

    def loss(kept: Sequence[int]) -> float:
        return float(np.dot(kept, [3, 2, 1, 0, 0, 0]))  # it is right to remove the first three

    problem = toy(structure, projector, tmp_path, loss=loss, limit=9, scores=scores)
    assert first_plan(problem, start="closed_form").kept == (0, 0, 0, 1, 1, 1)
    assert problem.objective.spent <= 4
    few = toy(structure, projector, tmp_path / "few", loss=loss, limit=1, scores=scores)
    first_plan(few, start="closed_form")  # as many as there is a budget for
    assert few.objective.spent == 1
