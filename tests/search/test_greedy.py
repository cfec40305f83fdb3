"""Rounds as small as the evaluations allow, the least hurt first."""

from pathlib import Path
from typing import Any

import pytest
from numpy.random import default_rng

from autoprune.search import greedy
from tests.search.known import KNOWN
from tests.search.toys import additive, toy, weights


def test_it_is_the_greedy_choice_when_there_are_evaluations_enough(tmp_path: Path) -> None:
    """Of losses that grow faster the more is gone, taking the cheapest unit each time is optimal."""
    parts = additive(*(weights(f"g{i}", units=8) for i in range(3)), prices=[1] * 3, limit=14)
    worth = (1.0, 2.1, 4.3)
    seen: list[Any] = []
    problem = toy(
        *parts, tmp_path, loss=lambda kept: sum(w * (8 - k) ** 2 for w, k in zip(worth, kept, strict=True)),
        limit=32, seen=seen,
    )  # fmt: skip
    plan = greedy.search(problem, rng=default_rng(0), step=0.1)
    assert plan.kept == (2, 5, 7)
    rounds = [outcome.plan.kept for _, outcome in seen]
    assert rounds[:4] == [(8, 8, 8), (7, 8, 8), (8, 7, 8), (8, 8, 7)]
    assert len(seen) == 32


def test_rounds_take_equal_parts_of_the_cost(tmp_path: Path) -> None:
    known, seen = KNOWN["separable"], list[Any]()
    greedy.search(known.problem(tmp_path, limit=27, seen=seen), rng=default_rng(0), step=0.1)
    cost, limit = known.projector.budget.cost, known.projector.budget.limit
    parts = (float(cost(known.structure.units)) - limit) / 5  # rounds of five groups, the dense network, the last plan
    first = [outcome.cost["weights"] for _, outcome in seen[1:6]]
    dense = seen[0][1].cost["weights"]
    assert seen[0][1].plan == known.structure.dense
    most = max(3, 2, 4, 5, 3)
    assert all(parts <= dense - spent < parts + most or spent == dense - 7 * price
               for spent, price in zip(first, (3, 2, 4, 5, 3), strict=True))  # fmt: skip


def test_few_evaluations_still_end_inside_the_budget(tmp_path: Path) -> None:
    known, seen = KNOWN["knapsack"], list[Any]()
    problem = known.problem(tmp_path, limit=14, seen=seen)
    plan = greedy.search(problem, rng=default_rng(0), step=0.1)
    assert problem.objective.spent == 14
    assert [outcome.feasible for _, outcome in seen] == [False] * 13 + [True]
    assert plan == seen[-1][1].plan


def test_fewer_than_one_round_are_refused(tmp_path: Path) -> None:
    problem = KNOWN["knapsack"].problem(tmp_path, limit=13)
    with pytest.raises(ValueError, match=r"14 evaluations.*13\..*evaluations=N"):
        greedy.search(problem, rng=default_rng(0), step=0.1)
    assert problem.objective.spent == 0
