"""Blocks with more outliers keep more, by the published rule, on the budget."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng

from autoprune.prior.block_densities import block_densities, outlier_shares
from autoprune.problem.problem import Problem
from autoprune.search import owl
from autoprune.structure.groups import Layer, Structure
from tests.search.toys import INPUTS, OUTPUTS, additive, blocks, depth, scores_with, toy


def test_shares_are_pooled_over_a_blocks_matrices(tmp_path: Path) -> None:
    shares = outlier_shares(blocks(tmp_path, [(0, 4), (2, 0), (10, 6)]), outlier=5.0)
    assert shares.tolist() == pytest.approx([4 / 400, 2 / 400, 16 / 400])


def test_a_matrix_is_compared_with_its_own_mean(tmp_path: Path) -> None:
    problem = blocks(tmp_path, [(3, 3)])
    scaled = {name: scores * (1 + 1000 * at) for at, (name, scores) in enumerate(problem.scores.items())}
    assert outlier_shares(blocks(tmp_path, [(3, 3)], scores=scaled), outlier=5.0).tolist() == [6 / 400]


def test_densities_are_the_rules(tmp_path: Path) -> None:
    problem = blocks(tmp_path, [(0,), (0,), (6,)])
    wish = block_densities(problem, shares=np.array([0.0, 0.0, 0.03]), spread=0.08)
    assert wish.tolist() == pytest.approx([0.5 - 0.16 / 3, 0.5 - 0.16 / 3, 0.5 + 0.32 / 3])
    plan = owl.search(problem, rng=default_rng(0), outlier=5.0, spread=0.08)
    assert plan.kept == (18, 18, 24)  # 60 units, wished for as 17.9, 17.9 and 24.3
    assert problem.objective.spent == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0, 0.24))
def test_densities_stay_within_the_spread_and_keep_the_mean(shares: list[float], spread: float) -> None:
    problem = blocks(Path(), [(0,)] * len(shares))
    wish = block_densities(problem, shares=np.array(shares), spread=spread)
    assert np.ptp(wish) == pytest.approx(2 * spread if np.ptp(shares) > 1e-6 else np.ptp(wish), abs=1e-9)
    assert np.abs(wish - 0.5).max() <= 2 * spread + 1e-9
    assert wish.mean() == pytest.approx(0.5)
    assert (np.diff(wish[np.argsort(shares)]) >= 0).all()


def test_blocks_that_are_alike_are_pruned_alike(tmp_path: Path) -> None:
    plan = owl.search(blocks(tmp_path, [(3, 0), (2, 1)]), rng=default_rng(0), outlier=5.0, spread=0.08)
    assert set(plan.kept) == {INPUTS // 2}


def test_units_have_outliers_too(tmp_path: Path) -> None:
    problem = blocks(tmp_path, [(0,), (0,)], scores={"h.0.m0": torch.ones(40), "h.1.m0": scores_with(2).flatten()[:40]})
    low, high = owl.search(problem, rng=default_rng(0), outlier=5.0, spread=0.08).kept
    assert (low, high) == (17, 23)


def test_what_it_cannot_do_is_said(tmp_path: Path) -> None:
    def run(problem: Problem, spread: float = 0.08) -> None:
        owl.search(problem, rng=default_rng(0), outlier=5.0, spread=spread)

    structure, projector = additive(depth("h.0"), prices=[1], limit=1)
    with pytest.raises(ValueError, match="this network has none that are known"):
        run(toy(structure, projector, tmp_path, loss=sum, limit=1))
    layer = Layer("h.0.m", "linear", 1, 1, 1, 1, 1, False, False)
    structure = Structure(structure.groups, (layer,), stages=("h.0",))
    with pytest.raises(ValueError, match=r"'h\.0' is whole or gone"):
        run(toy(structure, projector, tmp_path, loss=sum, limit=1))
    with pytest.raises(ValueError, match=r"'h\.0\.m0'"):
        run(blocks(tmp_path, [(0,)], scores={"h.1.m0": torch.ones(1)}))
    with pytest.raises(ValueError, match=r"'h\.0\.m0'.*-1"):
        run(blocks(tmp_path, [(0,)], scores={"h.0.m0": -torch.ones(OUTPUTS, INPUTS)}))
    with pytest.raises(ValueError, match=r"spread.*\[0, 0\.5\), the uniform plan's density; got 0\.6"):
        run(blocks(tmp_path, [(0,)]), spread=0.6)
