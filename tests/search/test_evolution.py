"""Evolution finds optima that are known, inside its evaluations, and every plan it asks for is on the budget."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng

from autoprune.cost.projection import Projector
from autoprune.evaluation.race import Race
from autoprune.prior.level_switches import Switch
from autoprune.search import evolution
from autoprune.structure.groups import Structure
from tests.search.searches import batch_sizes
from tests.search.toys import additive, depth, distance, structures, toy, weights

SETTINGS: dict[str, Any] = {"start": "uniform", "offspring": 8, "switches": 3, "step": 0.05}


WIDTHS = (3, 17, 9, 5, 14, 12)  # of 20 units each, at one price
BLOCKS = (0, 1, 1, 0, 1, 0, 1, 1, 1, 0, 1, 1)
PATTERNS = (2, 4, 4, 2, 4, 2, 2, 4)
PROBLEMS: dict[str, tuple[tuple[Structure, Projector], tuple[int, ...], int]] = {
    "widths": (additive(*(weights(f"g{i}", units=20) for i in range(6)), prices=[7] * 6, limit=7 * 60), WIDTHS, 400),
    "depth": (additive(*(depth(f"b{i}") for i in range(12)), prices=[5] * 12, limit=40), BLOCKS, 150),
    "2:4": (
        additive(*(weights(f"m{i}", units=4, levels=(2, 4)) for i in range(8)), prices=[3] * 8, limit=3 * 24),
        PATTERNS,
        100,
    ),
    "several prices": (
        additive(
            *(weights(f"g{i}", units=12) for i in range(4)),
            *(depth(f"b{i}") for i in range(4)),
            prices=[2, 3, 5, 7, 15, 15, 15, 15],
            limit=2 * 11 + 3 * 4 + 5 * 9 + 7 * 5 + 30,
        ),
        (11, 4, 9, 5, 0, 1, 0, 1),
        500,
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_it_finds_the_optimum_of_a_unimodal_problem(name: str, tmp_path: Path) -> None:
    (structure, projector), optimum, limit = PROBLEMS[name]
    assert projector.budget.cost(np.array(optimum)) == projector.budget.limit
    seen: list[Any] = []
    problem = toy(structure, projector, tmp_path, loss=distance(optimum), limit=limit, seen=seen)
    plan = evolution.search(problem, rng=default_rng(0), **SETTINGS)
    assert plan.kept == optimum
    assert len(seen) == problem.objective.spent == limit


def test_a_race_finds_it_too_and_judges_less(tmp_path: Path) -> None:
    (structure, projector), optimum, limit = PROBLEMS["widths"]
    seen: list[Any] = []
    problem = toy(
        structure, projector, tmp_path,
        loss=distance(optimum), limit=limit, noise=1.0, race=Race(first=0.125, growth=2.0, errors=2.0), seen=seen,
    )  # fmt: skip
    assert evolution.search(problem, rng=default_rng(0), **SETTINGS).kept == optimum
    samples = [outcome.metrics.samples for _, outcome in seen]
    assert sum(samples) < 0.4 * limit * max(samples)


def test_a_generation_is_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (structure, projector), optimum, _ = PROBLEMS["widths"]
    problem = toy(structure, projector, tmp_path, loss=distance(optimum), limit=45)
    sizes = batch_sizes(problem, monkeypatch)
    evolution.search(problem, rng=default_rng(0), **SETTINGS)
    assert sizes == [1, 8, 8, 8, 8, 8, 8]  # the last of them is cut to the four that are left


def test_no_plan_is_asked_for_twice_while_there_are_others(tmp_path: Path) -> None:
    (structure, projector), optimum, _ = PROBLEMS["widths"]
    seen: list[Any] = []
    problem = toy(structure, projector, tmp_path, loss=distance(optimum), limit=200, seen=seen)
    evolution.search(problem, rng=default_rng(0), **SETTINGS)
    assert len({outcome.plan.kept for _, outcome in seen}) == 200


def test_it_starts_where_it_is_told_to(tmp_path: Path) -> None:
    (structure, projector), optimum, _ = PROBLEMS["depth"]
    seen: list[Any] = []
    problem = toy(structure, projector, tmp_path, loss=distance(optimum), limit=40, seen=seen)
    evolution.search(problem, rng=default_rng(0), **SETTINGS | {"start": "sensitivity"})
    assert [phase for phase, _ in seen] == ["curves"] * 13 + ["search"] * 27


@given(structures(), st.integers(0, 2**16), st.sampled_from([0.02, 0.2, 1.0]))
def test_no_group_grows_by_more_than_its_step_or_a_level(
    parts: tuple[Structure, Projector], seed: int, step: float
) -> None:
    structure, projector = parts
    kept = projector.project(np.ones(len(structure.groups)))
    moved = Switch(projector, step)(kept, default_rng(seed))
    assert projector.budget.cost(moved) <= projector.budget.limit
    most = np.maximum(projector.next_levels(kept), kept + step * structure.units)
    assert (moved <= most).all()
    if (moved != kept).any():
        assert (moved > kept).any()
        assert (moved < kept).any()


def test_what_costs_more_than_all_give_at_once_is_paid_for_in_turns() -> None:
    _, projector = additive(
        weights("f0", units=50), weights("f1", units=50), depth("b"), prices=[3, 3, 100], limit=240
    )  # fmt: skip
    kept = np.array([40, 40, 0])
    plans = [Switch(projector, 0.05)(kept, default_rng(seed)) for seed in range(20)]
    restored = [plan for plan in plans if plan[2] == 1]
    assert restored
    for plan in restored:
        assert abs(plan[0] - plan[1]) <= 3
        assert 240 - 3 < projector.budget.cost(plan) <= 240


def test_fine_groups_exchange_in_pairs() -> None:
    _, projector = additive(*(weights(f"g{i}", units=100) for i in range(8)), prices=[1, 2] * 4, limit=600)
    kept = projector.project(np.ones(8))
    for seed in range(20):
        change = Switch(projector, 0.05)(kept, default_rng(seed)) - kept
        assert ((change > 0).sum(), (change < 0).sum()) == (1, 1)
        assert np.abs(change).max() <= 5
