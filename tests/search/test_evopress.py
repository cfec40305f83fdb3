"""EvoPress's schedule: random first plans on one batch, many offspring on few batches and few on all."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import default_rng

from autoprune.search import evopress
from tests.evaluation.tables import Table
from tests.search.searches import search
from tests.search.toys import BATCHES, additive, depth, filled, toy, weights

STAGES = [(0.125, 4), (0.5, 2), (1.0, 1)]


def run(problem: Any, *, seed: int = 0, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "first_plans": 6,
        "offspring": 8,
        "stages": STAGES,
        "switches": 3,
        "step": 0.1,
    } | changes
    return evopress.search(problem, rng=default_rng(seed), **settings)


def depth_problem(folder: Path, *, limit: int, seen: list[Any] | None = None) -> Any:
    """Six of twelve modules stay; each costs something else to lose, and neighbours more."""
    worth = np.random.default_rng(3).permutation(12) + 1.0
    structure, projector = additive(*(depth(f"h.{i}") for i in range(12)), prices=[1] * 12, limit=6)

    def loss(kept: tuple[int, ...]) -> float:
        gone = 1 - np.array(kept)
        return float(gone @ worth + 3 * (gone[1:] * gone[:-1]).sum())

    return toy(structure, projector, folder, loss=loss, limit=limit, noise=0.5, seen=seen)


def asked(problem: Any) -> dict[tuple[int, ...], set[int]]:
    """Plan → the batches that it was judged on."""
    table = problem.objective.uncharged.pool._evaluator
    assert isinstance(table, Table)
    judged: dict[tuple[int, ...], set[int]] = {}
    for job in table.asked:
        judged.setdefault(job.kept, set()).update(range(job.start, job.stop))
    return judged


def test_it_finds_what_is_best_of_depth(tmp_path: Path) -> None:
    problem = depth_problem(tmp_path, limit=300)
    plan = run(problem)
    kept = np.array(list(np.ndindex(*[2] * 12)))
    worth = np.random.default_rng(3).permutation(12) + 1.0
    gone = 1 - kept[kept.sum(axis=1) == 6]
    best = (gone @ worth + 3 * (gone[:, 1:] * gone[:, :-1]).sum(axis=1)).min()
    own = 1 - np.array(plan.kept)
    assert own @ worth + 3 * (own[1:] * own[:-1]).sum() == best
    assert filled(problem, plan.kept)


def test_stages_read_what_they_say(tmp_path: Path) -> None:
    problem = depth_problem(tmp_path, limit=6 + 8)
    run(problem)
    judged = asked(problem)
    first, offspring = list(judged)[:6], list(judged)[6:]
    assert problem.objective.spent == 14 == len(judged)
    assert sorted(len(judged[kept]) for kept in first) == [1] * 5 + [BATCHES]
    assert len({min(judged[kept]) for kept in first if len(judged[kept]) == 1}) == 1  # all on the same batch
    seen = Counter(len(judged[kept]) for kept in offspring)
    assert seen[1] == 4  # half leave after an eighth of the batches
    assert seen[BATCHES] == 2
    assert sum(seen.values()) == 8


def test_batches_are_drawn_anew(tmp_path: Path) -> None:
    problem = depth_problem(tmp_path, limit=6 + 8 * 8)
    run(problem)
    alone = {min(batches) for batches in asked(problem).values() if len(batches) == 1}
    assert len(alone) > 3


def test_the_result_was_judged_on_everything(tmp_path: Path) -> None:
    seen: list[Any] = []
    problem = depth_problem(tmp_path, limit=60, seen=seen)
    plan = run(problem)
    whole = [outcome for _, outcome in seen if outcome.whole]
    assert max(whole, key=lambda outcome: outcome.reward).plan == plan
    assert len(asked(problem)[plan.kept]) == BATCHES
    assert len(seen) == 60
    assert all(outcome.reward <= max(w.reward for w in whole) for _, outcome in seen)  # estimates don't win


def test_a_seed_decides(tmp_path: Path) -> None:
    plans = [[o.plan for _, o in seen] for seen in (trace(tmp_path, 0), trace(tmp_path, 0), trace(tmp_path, 1))]
    assert plans[0] == plans[1] != plans[2]


def trace(folder: Path, seed: int) -> list[Any]:
    seen: list[Any] = []
    run(depth_problem(folder, limit=40, seen=seen), seed=seed)
    return seen


def test_without_first_plans_it_begins_at_the_uniform_one(tmp_path: Path) -> None:
    structure, projector = additive(*(weights(str(i), units=20) for i in range(3)), prices=[1] * 3, limit=30)
    problem = toy(structure, projector, tmp_path, loss=lambda kept: kept[0] - kept[2], limit=1)
    assert run(problem, first_plans=0).kept == (10, 10, 10)


def test_its_settings_are_those_of_the_scripts(tmp_path: Path) -> None:
    problem = depth_problem(tmp_path, limit=32 + 64)
    search("evopress")(problem, rng=default_rng(0))
    sizes = Counter(len(batches) for batches in list(asked(problem).values())[32:])
    assert problem.objective.spent == 96
    assert sizes[BATCHES] == 2
    assert sizes[1] >= 50


@pytest.mark.parametrize(
    "stages", [[], [(0.5, 1)], [(1.0, 2)], [(0.5, 1), (0.25, 1), (1.0, 1)], [(0.5, 1), (1.0, 1), (1.0, 2)]]
)
def test_stages_that_lead_to_no_plan_are_a_sentence(stages: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"agent\.stages are \[share of the proxy, plans that go on\]"):
        run(depth_problem(tmp_path, limit=20), stages=stages)
