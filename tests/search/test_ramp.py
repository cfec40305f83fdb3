"""Sparsities in arithmetic progression over the blocks of a transformer, by the published rule, on the budget."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng

from autoprune.prior.block_densities import PARTS, block_plans, ramp_densities
from autoprune.prior.starts import price, prior_of
from autoprune.search import ramp
from tests.search.toys import INPUTS, additive, blocks, depth, toy

FOUR = [(0,)] * 4


def test_sparsities_rise_by_equal_steps() -> None:
    problem = blocks(Path(), FOUR, density=0.3)
    beta = 0.4 * 2 * 0.3 / 3  # of the largest difference, min(2 S, 2 (1 - S)) / (L - 1) with S = 0.7
    sparsities = [0.7 - beta * 3 / 2 + beta * at for at in range(4)]
    assert ramp_densities(problem, 0.4) == pytest.approx(1 - np.array(sparsities))
    assert ramp_densities(problem, 0.0).tolist() == pytest.approx([0.3] * 4)


@given(st.integers(1, 7), st.floats(0.1, 0.9), st.floats(0, 0.99))
def test_the_mean_is_the_uniform_density_and_none_is_out_of_range(number: int, density: float, part: float) -> None:
    problem = blocks(Path(), [(0, 0)] * number, density=density)
    densities = ramp_densities(problem, part)
    assert densities.min() > 0
    assert densities.max() <= 1 + 1e-9
    assert densities.mean() == pytest.approx(ramp_densities(problem, 0.0).mean())
    assert np.allclose(np.diff(densities[::2], n=2), 0)
    assert (np.diff(densities) <= 1e-12).all()


def test_the_best_difference_is_chosen(tmp_path: Path) -> None:
    """Of a loss that a certain slope makes smallest; another slope of the same mean is worse."""

    def loss(kept: tuple[int, ...]) -> float:
        return float(np.square(np.array(kept) - np.array([26, 22, 18, 14])).sum())

    problem = blocks(tmp_path, FOUR, loss=loss, limit=40)
    plan = ramp.search(problem, rng=default_rng(0), trials=10)
    assert plan.kept == (26, 22, 18, 14)
    assert problem.objective.spent == 10
    control = blocks(tmp_path, FOUR, loss=lambda kept: -loss(kept), limit=40)
    assert ramp.search(control, rng=default_rng(0), trials=10).kept != plan.kept


def test_as_many_are_tried_as_there_are_evaluations(tmp_path: Path) -> None:
    problem = blocks(tmp_path, FOUR, limit=3)
    ramp.search(problem, rng=default_rng(0), trials=10)
    assert problem.objective.spent == 3


def test_searches_begin_at_owls_plan_or_a_ramp_where_these_are_better(tmp_path: Path) -> None:
    problem = blocks(tmp_path, [(0,), (0,), (6,)], limit=40)
    plans = block_plans(problem)
    assert len(plans) == 1 + len(PARTS)
    assert price(problem, start="closed_form") == 1 + len(plans)  # least squares says nothing here
    for best in plans:

        def loss(kept: tuple[int, ...], best: tuple[int, ...] = best.kept) -> float:
            return float(np.abs(np.array(kept) - np.array(best)).sum())

        begun = prior_of(blocks(tmp_path, [(0,), (0,), (6,)], loss=loss, limit=40), start="closed_form")
        assert begun.outcome.plan == best
        assert len(begun.others) == len(plans)
    poor = blocks(tmp_path, [(0,), (0,), (6,)], limit=2)
    assert price(poor, start="closed_form") == 2
    assert poor.objective.spent == 0


def test_scores_that_owl_cannot_read_leave_the_ramps(tmp_path: Path) -> None:
    problem = blocks(tmp_path, [(0,), (0,)], scores={name: -torch.ones(5, INPUTS) for name in ("h.0.m0", "h.1.m0")})
    assert len(block_plans(problem)) == len(PARTS)


def test_what_it_cannot_do_is_said(tmp_path: Path) -> None:
    structure, projector = additive(depth("h.0"), prices=[1], limit=1, stages=("h",))
    problem = toy(structure, projector, tmp_path, loss=sum, limit=9)
    assert block_plans(problem) == []
    with pytest.raises(ValueError, match=r"group 'h\.0' is whole or gone; try another search"):
        ramp.search(problem, rng=default_rng(0), trials=10)
