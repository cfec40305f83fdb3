"""What every search without an agent is held to: known optima, whole budgets, the evaluations that it was given."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.random import default_rng

from autoprune.cost.projection import Projector
from autoprune.prior.starts import price
from autoprune.problem.problem import Problem
from autoprune.search import erk, global_ranking
from autoprune.structure.groups import Structure
from tests.search.known import KNOWN
from tests.search.searches import SEARCHES, Run
from tests.search.toys import additive, depth, distance, filled, filled_on, structures, toy
from tests.search.toys import problem as live
from tests.tasks import prepared, tiny_task

EVALUATIONS = {"random_around": 60, "spdy": 50, "tpe": 60}  # else 100
# How far from the best plan they are after as many, at most; uniform is 1.
REGRET = {
    "annealing": {
        "separable": 0.05, "chain": 0.2, "deceptive": 0.05, "knapsack": 0.05, "blocks in a chain": 0.1, "2:4": 0.05,
        "mixed": 0.05,
    },
    "cmaes": {
        "separable": 0.05, "chain": 0.05, "deceptive": 0.05, "knapsack": 0.25, "blocks in a chain": 0.2, "2:4": 0.2,
        "mixed": 0.05,
    },
    "greedy": {
        "separable": 0.05, "chain": 0.2, "deceptive": 0.05, "knapsack": 0.05, "blocks in a chain": 0.05, "2:4": 0.05,
        "mixed": 0.05,
    },
    "legr": {
        "separable": 0.05, "chain": 0.1, "deceptive": 0.05, "knapsack": 0.05, "blocks in a chain": 0.2, "2:4": 0.2,
        "mixed": 0.05,
    },
    "random_around": {"separable": 0.05, "chain": 0.25, "knapsack": 0.05, "mixed": 0.05},
    "spdy": {"separable": 0.05, "chain": 0.25, "mixed": 0.05},
    "tpe": {"separable": 0.1, "deceptive": 0.1, "2:4": 0.1},
}  # fmt: skip


def cases() -> Iterator[Any]:
    for name, bounds in REGRET.items():
        for known in bounds:
            slow = name in ("spdy", "tpe") and known != "separable"
            yield pytest.param(name, known, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(("name", "known"), list(cases()))
def test_it_comes_near_the_best_plan_of_a_known_problem(name: str, known: str, tmp_path: Path) -> None:
    problem = KNOWN[known].problem(tmp_path, limit=EVALUATIONS.get(name, 100))
    plan = SEARCHES[name](problem, rng=default_rng(0))
    assert problem.objective.spent == EVALUATIONS.get(name, 100)
    assert KNOWN[known].regret(plan) <= REGRET[name][known]


def test_misleading_curves_mislead_only_those_that_go_by_them(tmp_path: Path) -> None:
    known = KNOWN["deceptive"]
    around = SEARCHES["random_around"](known.problem(tmp_path, limit=50), rng=default_rng(0))
    rescaled = SEARCHES["spdy"](known.problem(tmp_path, limit=50), rng=default_rng(0))
    assert known.regret(around) > 1, "no plan near the sensitivity plan is as good as uniform"
    assert known.regret(rescaled) < 0.5, "other coefficients lead far from it"


def scored(structure: Structure) -> dict[str, torch.Tensor]:
    return {group.name: torch.arange(1.0, group.units + 1) for group in structure.groups}


def problem_of(parts: tuple[Structure, Projector], limit: int, seen: list[Any]) -> Problem:
    structure, projector = parts
    loss = distance(tuple(((structure.units + structure.floor) // 2).tolist()))
    return toy(structure, projector, Path(), loss=loss, limit=limit, seen=seen, scores=scored(structure))


@pytest.mark.parametrize("name", ["annealing", "cmaes", "evolution", "legr"])
@given(structures(), st.integers(0, 2**16), st.integers(1, 15))
def test_every_plan_is_filled_and_every_evaluation_spent(
    name: str, parts: tuple[Structure, Projector], seed: int, limit: int
) -> None:
    seen: list[Any] = []
    problem = problem_of(parts, limit, seen)
    plan = SEARCHES[name](problem, rng=default_rng(seed))
    assert len(seen) == problem.objective.spent == limit
    assert all(filled_on(problem.projector, outcome.plan.kept) for _, outcome in seen)
    assert plan == max((outcome for _, outcome in seen), key=lambda o: o.reward).plan


@given(structures(), st.integers(0, 2**16), st.integers(0, 6))
def test_the_control_is_filled_and_spends_all(parts: tuple[Structure, Projector], seed: int, more: int) -> None:
    assume(all(len(group.levels) > 1 for group in parts[0].groups))  # a curve has a level below the dense one
    seen: list[Any] = []
    limit = price(problem_of(parts, 10**6, []), start="sensitivity") + more
    problem = problem_of(parts, limit, seen)
    plan = SEARCHES["random_around"](problem, rng=default_rng(seed))
    assert len(seen) == limit
    assert [phase for phase, _ in seen].count("search") == more + 1
    assert all(filled_on(problem.projector, outcome.plan.kept) for phase, outcome in seen if phase == "search")
    assert plan in [outcome.plan for phase, outcome in seen if outcome.feasible]


@given(structures(), st.integers(0, 2**16), st.integers(2, 20))
def test_greedy_ends_inside_the_budget(parts: tuple[Structure, Projector], seed: int, more: int) -> None:
    seen: list[Any] = []
    limit = len(parts[0].groups) + more
    problem = problem_of(parts, limit, seen)
    plan = SEARCHES["greedy"](problem, rng=default_rng(seed))
    assert len(seen) == limit
    assert all(filled_on(problem.projector, outcome.plan.kept) for _, outcome in seen if outcome.feasible)
    assert plan in [outcome.plan for _, outcome in seen if outcome.feasible]


@pytest.mark.parametrize("name", ["spdy", "tpe"])
def test_slower_ones_fill_and_spend_too(name: str, tmp_path: Path) -> None:
    seen: list[Any] = []
    problem = KNOWN["mixed"].problem(tmp_path, limit=30, seen=seen)
    plan = SEARCHES[name](problem, rng=default_rng(3))
    assert len(seen) == 30
    searched = [outcome for phase, outcome in seen if phase == "search"]
    assert all(filled_on(problem.projector, outcome.plan.kept) for outcome in searched)
    assert plan in [outcome.plan for _, outcome in seen]


def history(name: str, problem: Problem, seen: list[Any], seed: int) -> list[tuple[int, ...]]:
    SEARCHES[name](problem, rng=default_rng(seed))
    return [outcome.plan.kept for _, outcome in seen]


def test_a_networks_plans_are_filled_too(tmp_path: Path) -> None:
    ready = prepared(tiny_task("digits_net"), budget="macs:0.4")
    rankings: dict[str, Run] = {
        scale: partial(global_ranking.search, scale=scale) for scale in ("none", "mean", "lamp")
    }
    for name, search in {**SEARCHES, **rankings, "erk": erk.search}.items():
        if name not in ("random_around", "spdy", "tpe"):
            seen: list[Any] = []
            plan = search(live(ready, tmp_path, limit=12, seen=seen), rng=default_rng(0))
            assert filled(ready, plan.kept), name
            assert len(seen) == (12 if name in SEARCHES else 1), name


@pytest.mark.parametrize("name", SEARCHES)
def test_the_same_seed_asks_the_same_whatever_the_rewards_unit(name: str, tmp_path: Path) -> None:
    known, histories = KNOWN["chain"], []
    louder = replace(known, loses=lambda gone: 1024 * known.loses(gone))  # a power of two is exact
    before = np.random.get_state()[1].tobytes(), torch.get_rng_state()  # type: ignore[union-attr]
    for asked, seed in ((known, 5), (louder, 5), (known, 6)):
        seen: list[Any] = []
        problem = asked.problem(tmp_path, limit=32, seen=seen, scores=known.scores())
        histories.append(history(name, problem, seen, seed))
    assert histories[0] == histories[1] != histories[2]
    assert before[0] == np.random.get_state()[1].tobytes()  # type: ignore[union-attr]
    assert torch.equal(before[1], torch.get_rng_state())


@pytest.mark.parametrize("name", ["random_around", "spdy"])
def test_too_few_evaluations_for_the_curves_say_so(name: str, tmp_path: Path) -> None:
    problem = KNOWN["chain"].problem(tmp_path, limit=9)
    with pytest.raises(ValueError, match=r"needs \d+ evaluations.*got 9\. Give it more with evaluations=N"):
        SEARCHES[name](problem, rng=default_rng(0))
    assert problem.objective.spent == 0


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("annealing", {"start": "best"}, r"closed_form.*'best'"),
        ("annealing", {"first": 0.1, "last": 0.2}, "0 < last ≤ first < 1, got first=0.1 and last=0.2"),
        ("cmaes", {"start": "best"}, r"closed_form.*'best'"),
        ("cmaes", {"population": 3}, r"population.*at least 4 or.*got 3"),
        ("random_around", {"start": "best"}, r"closed_form.*'best'"),
        ("tpe", {"least_density": 1.0}, r"\(0, 1\), got 1.0"),
    ],
)
def test_senseless_settings_are_refused_before_anything_is_paid_for(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    problem = KNOWN["chain"].problem(tmp_path, limit=60)
    with pytest.raises(ValueError, match=message):
        SEARCHES[name](problem, rng=default_rng(0), **changes)
    assert problem.objective.spent == 0


def test_a_problem_of_one_plan_ends(tmp_path: Path) -> None:
    parts = additive(depth("only"), prices=[5], limit=3)
    for name in ("annealing", "cmaes", "evolution", "greedy", "legr", "random_around", "spdy", "tpe"):
        problem = toy(*parts, tmp_path, loss=lambda kept: -sum(kept), limit=12, scores=scored(parts[0]))
        assert SEARCHES[name](problem, rng=default_rng(0)).kept == (0,)
        assert problem.objective.spent == 12
