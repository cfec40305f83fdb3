"""One order of all units: the best stay, whatever the scores' scale where that is taken out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng
from torch import Tensor

from autoprune.cost.projection import Projector
from autoprune.search import global_ranking
from autoprune.search.global_ranking import best_units, unit_scores
from autoprune.structure.groups import Comparison, Group, Structure
from tests.search.known import KNOWN
from tests.search.toys import additive, depth, filled_on, structures, toy, weights


def values_of(structure: Structure, seed: int) -> list[Any]:
    rng = default_rng(seed)
    return [np.sort(rng.exponential(rng.uniform(0.1, 5), group.units))[::-1] for group in structure.groups]


def test_the_best_units_of_all_groups_stay() -> None:
    structure, projector = additive(*(weights(f"g{i}", units=10) for i in range(4)), prices=[3] * 4, limit=3 * 17)
    values = values_of(structure, 0)
    kept = best_units(projector, values)
    others = np.sort(np.concatenate([v[1:] for v in values]))[::-1]  # one of each stays in any case
    assert kept.tolist() == [1 + int((v[1:] >= others[17 - 4 - 1]).sum()) for v in values]
    assert kept.sum() == 17


@given(structures(), st.integers(0, 2**16))
def test_the_budget_is_filled_and_what_stays_beats_what_went(parts: tuple[Structure, Projector], seed: int) -> None:
    structure, projector = parts
    values = values_of(structure, seed)
    kept = best_units(projector, values)
    assert filled_on(projector, kept)
    assert all(k in levels for k, levels in zip(kept, projector.levels, strict=True))
    assert kept.tolist() == best_units(projector, [v * 4 for v in values]).tolist()


def test_the_best_that_fits_is_taken_next() -> None:
    _, projector = additive(depth("large"), depth("second"), depth("third"), prices=[8, 6, 5], limit=7)
    assert best_units(projector, [np.array([3.0]), np.array([2.0]), np.array([1.0])]).tolist() == [0, 1, 0]


@pytest.mark.parametrize("scale", ["mean", "lamp"])
def test_scales_are_taken_out(scale: Any, tmp_path: Path) -> None:
    known = KNOWN["chain"]
    scores = known.scores()
    louder = {name: values * 10.0**at for at, (name, values) in enumerate(scores.items())}
    plans = [
        global_ranking.search(known.problem(tmp_path, limit=1, scores=s), rng=default_rng(0), scale=scale)
        for s in (scores, louder)
    ]
    assert plans[0] == plans[1]
    assert plans[0] != global_ranking.search(
        known.problem(tmp_path, limit=1, scores=louder), rng=default_rng(0), scale="none"
    )


def test_lamp_is_the_published_formula(tmp_path: Path) -> None:
    parts = additive(weights("w", units=4), prices=[1], limit=2)
    problem = toy(*parts, tmp_path, loss=sum, limit=1, scores={"w": torch.tensor([1.0, 3.0, 0.0, 2.0])})
    assert unit_scores(problem, scale="lamp")[0].tolist() == pytest.approx([1, 4 / 13, 1 / 14, 0])


def test_a_matrix_unit_is_the_mean_of_its_comparisons(tmp_path: Path) -> None:
    group = Group("m", "n_m", 2, (), (1, 2), compared=(Comparison("m", 2),))
    parts = additive(group, prices=[1], limit=1)
    scores = {"m": torch.tensor([[1.0, 5.0, 2.0, 0.0], [3.0, 4.0, 6.0, 6.0]])}
    problem = toy(*parts, tmp_path, loss=sum, limit=1, scores=scores)
    assert unit_scores(problem, scale="none")[0].tolist() == [(5 + 2 + 4 + 6) / 4, (1 + 0 + 3 + 6) / 4]


def test_blocks_are_compared_with_blocks(tmp_path: Path) -> None:
    parts = additive(depth("b0"), depth("b1"), weights("w", units=2), prices=[1] * 3, limit=2)
    scores = {"b0": torch.tensor([30.0]), "b1": torch.tensor([10.0]), "w": torch.tensor([0.3, 0.1])}
    found = unit_scores(toy(*parts, tmp_path, loss=sum, limit=1, scores=scores), scale="mean")
    assert [v.tolist() for v in found] == [[1.5], [0.5], pytest.approx([1.5, 0.5])]


@pytest.mark.parametrize(("known", "bound"), [("separable", 0.1), ("chain", 0.4), ("knapsack", 0.1)])
def test_good_scores_make_a_good_plan_of_a_known_problem(known: str, bound: float, tmp_path: Path) -> None:
    problem = KNOWN[known].problem(tmp_path, limit=5)
    plan = global_ranking.search(problem, rng=default_rng(0), scale="none")
    assert problem.objective.spent == 1
    assert KNOWN[known].regret(plan) <= bound


def test_what_it_cannot_do_is_said(tmp_path: Path) -> None:
    def run(scale: Any, scores: dict[str, Tensor]) -> None:
        parts = additive(weights("w", units=2), depth("b"), prices=[1, 1], limit=2)
        global_ranking.search(toy(*parts, tmp_path, loss=sum, limit=1, scores=scores), rng=default_rng(0), scale=scale)

    good = {"w": torch.ones(2), "b": torch.ones(1)}
    with pytest.raises(ValueError, match=r"agent\.scale.*'max'"):
        run("max", good)
    with pytest.raises(ValueError, match=r"LAMP.*'b'.*agent=global"):
        run("lamp", good)
    with pytest.raises(ValueError, match="group 'w' has none"):
        run("none", {"b": torch.ones(1)})
    with pytest.raises(ValueError, match="not negative, and group 'w' has -1; try another importance"):
        run("mean", good | {"w": -torch.ones(2)})
