import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autoprune.evaluation import judge
from autoprune.evaluation.judge import Judge
from autoprune.evaluation.objective import Objective
from autoprune.evaluation.race import Race
from autoprune.evaluation.store import EvaluationStore
from autoprune.evaluation.workers import JudgeJob
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem
from autoprune.repair.repair import Repair
from autoprune.structure.edit import shrink
from autoprune.task.task import Role, Roles
from tests.evaluation.tables import Several, Table, by_size, objective_by, timeless
from tests.models import random_plan
from tests.tasks import prepared, tiny_task

UNREPAIRED = Repair(batch_norm=False)
RACE = Race(first=0.1, growth=3, errors=3)


@pytest.fixture(params=["residual", "separable", "dense", "flattened"])
def ready(request: pytest.FixtureRequest) -> Any:
    return prepared(tiny_task(request.param), repair=UNREPAIRED, batch_size=16)


@pytest.fixture(scope="module")
def residual() -> Problem:
    return prepared(tiny_task())


def some_plans(ready: Problem, count: int) -> list[PruningPlan]:
    """Different ones."""
    plans = {plan.kept: plan for plan in (random_plan(ready.structure, seed=seed) for seed in range(4 * count))}
    return list(plans.values())[:count]


# what an outcome says


def test_outcomes_are_those_of_the_shrunk_network(ready: Any) -> None:
    judged = Judge(ready.task, ready.task.data.search[:40])
    for seed in range(5):
        plan = random_plan(ready.structure, seed=seed)
        network = shrink(ready.task.model, ready.structure, plan, ready.candidates.ranking)
        expected, outcome = judged(network), ready.objective.uncharged.evaluate([plan])[0]
        assert outcome.metrics.kl == pytest.approx(expected.kl, rel=1e-3, abs=1e-5)
        assert outcome.metrics.loss == pytest.approx(expected.loss, rel=1e-3)
        assert outcome.metrics.samples == 40
        assert outcome.whole
        assert outcome.cost["params"] == sum(parameter.numel() for parameter in network.parameters())


def test_the_dense_plan_loses_nothing(ready: Any) -> None:
    metrics = ready.objective.uncharged.evaluate([ready.structure.dense])[0].metrics
    assert metrics.kl == pytest.approx(0, abs=1e-6)
    assert metrics.agreement == 1


def test_feasible_means_inside_the_budget() -> None:
    ready = prepared(tiny_task(), budget="params:0.5")
    for seed in range(20):
        outcome = ready.objective.uncharged.evaluate([random_plan(ready.structure, seed=seed)])[0]
        assert outcome.feasible == (outcome.cost["params"] <= ready.projector.budget.limit)


def test_every_score_says_more_is_better() -> None:
    ready = prepared(tiny_task(), repair=UNREPAIRED)
    worse = ready.objective.uncharged.evaluate([ready.structure.plan(ready.structure.floor)])[0].metrics
    same = ready.objective.uncharged.evaluate([ready.structure.dense])[0].metrics
    assert judge.kl(same) > judge.kl(worse)
    assert judge.agreement(same) == 1 >= judge.agreement(worse)
    assert judge.loss(same) == -same.loss
    assert judge.accuracy(same) == same.accuracy


def test_bf16_ranks_plans_as_fp32_does() -> None:
    task = tiny_task("separable")
    ready = prepared(task)
    plans = [random_plan(ready.structure, seed=seed) for seed in range(10)]
    rough = prepared(task, precision="bf16").objective.uncharged.evaluate(plans)
    scores = [[o.score for o in outcomes] for outcomes in (ready.objective.uncharged.evaluate(plans), rough)]
    assert torch.corrcoef(torch.tensor(scores))[0, 1] > 0.99


def test_rewards_see_neither_the_test_role_nor_the_held_out_samples() -> None:
    task = tiny_task()
    ready = prepared(task)
    plans = some_plans(ready, 4)
    poisoned = dict(task.data.items())
    poisoned["test"] = _nan(task.data.test)
    inputs = task.data.search.inputs.clone()
    inputs[40:] = torch.nan
    poisoned["search"] = Role(inputs, task.data.search.targets, task.data.search.ids)
    again = prepared(task.with_data(Roles(**poisoned)))
    assert timeless(again.objective.uncharged.evaluate(plans)) == timeless(ready.objective.uncharged.evaluate(plans))


def _nan(role: Role) -> Role:
    return Role(torch.full_like(role.inputs, torch.nan), role.targets, role.ids)


def test_a_task_without_a_budget_needs_one() -> None:
    with pytest.raises(ValueError, match=r"budget=macs:0\.5"):
        prepared(tiny_task(budget=None))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"proxy_samples": 60}, r"\[1, 59\].*got 60"), ({"budget": "watts:0.5"}, "unknown cost 'watts'")],
)
def test_senseless_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepared(tiny_task(), **changes)


# a pure function that computes nothing twice


def test_equal_plans_are_judged_once(residual: Problem) -> None:
    table, plan = Table(by_size), some_plans(residual, 1)[0]
    objective = objective_by(table, residual)
    first, second = objective.evaluate([plan, dataclasses.replace(plan)])
    assert timeless([first, second]) == timeless(objective.evaluate([plan])) * 2
    assert table.asked == [JudgeJob(plan.kept, 0, 8)]


@given(data=st.data(), first=st.sampled_from([0.1, 0.3, 1.0]), size=st.integers(1, 4))
def test_outcomes_follow_from_the_plans_and_the_rival_alone(
    residual: Problem, data: st.DataObject, first: float, size: int
) -> None:
    """Whatever was asked before, by whichever pool, and whatever the store knows."""
    plans, race = some_plans(residual, 9), Race(first=first, growth=2, errors=2)
    some = st.lists(st.sampled_from(plans), max_size=6)
    asked, against = data.draw(some), data.draw(st.none() | st.sampled_from(plans))
    failing = data.draw(st.dictionaries(st.sampled_from([plan.kept for plan in plans]), st.integers(0, 7), max_size=4))

    def value(kept: tuple[int, ...], batch: int, block: int) -> float:
        if batch >= failing.get(kept, 8):
            raise FloatingPointError("1 of its outputs is NaN or infinite")
        return by_size(kept, batch, block)

    def answers(objective: Objective) -> list[Any]:
        """Without the worst rewards so far, which those that failed have."""
        found = objective.evaluate(asked, against=against)
        texts = zip(found, timeless(found), strict=True)
        return [text if outcome.failed is None else outcome.plan for outcome, text in texts]

    def first_one(objective: Objective) -> Objective:
        """That was judged, so that there is a worst."""
        objective.evaluate([residual.structure.dense])
        return objective

    failing.pop(residual.structure.dense.kept, None)
    expected = answers(first_one(objective_by(Table(value), residual, race=race)))
    table = Table(value)
    warm = first_one(objective_by(table, residual, race=race, pool=Several(table, size)))
    for _ in range(data.draw(st.integers(1, 3))):
        warm.evaluate(
            data.draw(some), against=data.draw(st.none() | st.sampled_from(plans)), whole=data.draw(st.booleans())
        )
    assert answers(warm) == expected


def test_a_second_objective_on_the_same_store_judges_nothing(residual: Problem, tmp_path: Path) -> None:
    plans, race = some_plans(residual, 9), Race(first=0.2, growth=2, errors=3)
    with EvaluationStore(tmp_path / "store.sqlite") as store:
        context = store.within({"task": "residual"})
        first = objective_by(Table(by_size), residual, race=race, store=context)
        expected = timeless(first.evaluate(plans)), timeless(first.evaluate(plans[:4], against=plans[5]))
    with EvaluationStore(tmp_path / "store.sqlite") as store:
        table = Table(by_size)
        second = objective_by(table, residual, race=race, store=store.within({"task": "residual"}))
        assert timeless(second.evaluate(plans)) == expected[0]
        assert timeless(second.evaluate(plans[:4], against=plans[5])) == expected[1]
        assert not table.asked
        second.close()
        with pytest.raises(ValueError, match="was closed"):
            store.within({}).count()


@pytest.mark.parametrize(
    ("known", "judged"),
    [((), [(0, 8)]), ((0, 1, 2), [(3, 8)]), ((0, 2), [(1, 2), (3, 8)]), ((1, 2), [(0, 1), (3, 8)]), (range(8), [])],
)
def test_what_a_store_knows_of_a_plan_is_not_judged_again(
    residual: Problem, tmp_path: Path, known: tuple[int, ...], judged: list[tuple[int, int]]
) -> None:
    plan, table = some_plans(residual, 1)[0], Table(by_size)
    with EvaluationStore(tmp_path / "store.sqlite") as store:
        context = store.within({})
        for batch in known:
            context.put(plan.kept, batch, [table.judged(plan.kept, batch)])
        found = objective_by(table, residual, store=context).evaluate([plan])
        assert table.asked == [JudgeJob(plan.kept, *run) for run in judged]
        assert timeless(found) == timeless(objective_by(Table(by_size), residual).evaluate([plan]))
        assert context.count() == 8


def test_what_was_judged_before_a_bug_is_in_the_store(residual: Problem, tmp_path: Path) -> None:
    good, bad = some_plans(residual, 2)

    def value(kept: tuple[int, ...], batch: int, block: int) -> float:
        return {good.kept: 1.0}[kept]

    with EvaluationStore(tmp_path / "store.sqlite") as store:
        context = store.within({})
        with pytest.raises(KeyError):
            objective_by(Table(value), residual, store=context).evaluate([good, bad])
        assert context.count() == 8


# jobs


@given(count=st.integers(1, 5), size=st.integers(1, 7), batches=st.integers(1, 9))
def test_jobs_cover_every_batch_once_and_use_all_workers(
    residual: Problem, count: int, size: int, batches: int
) -> None:
    plans, table = some_plans(residual, 5)[:count], Table(by_size)
    pool = Several(table, size)
    found = objective_by(table, residual, batches=batches, pool=pool).evaluate(plans)
    covered = sorted((job.kept, batch) for job in pool.given for batch in range(job.start, job.stop))
    assert covered == sorted((plan.kept, batch) for plan in plans for batch in range(batches))
    assert all(job.start < job.stop for job in pool.given)
    assert len(pool.given) == count * max(1, min(size // count, batches))
    assert timeless(found) == timeless(objective_by(Table(by_size), residual, batches=batches).evaluate(plans))


def test_one_plan_is_shared_out_among_three() -> None:
    ready = prepared(tiny_task())
    table = Table(by_size)
    pool, kept = Several(table, 3), ready.structure.dense.kept
    objective_by(table, ready, pool=pool).evaluate([ready.structure.dense])
    assert pool.given == [JudgeJob(kept, 0, 3), JudgeJob(kept, 3, 5), JudgeJob(kept, 5, 8)]


def test_what_cannot_be_divided_is_not(residual: Problem) -> None:
    table = Table(by_size, divisible=False)
    pool = Several(table, 3)
    outcomes = objective_by(table, residual, pool=pool, race=RACE).evaluate(some_plans(residual, 4))
    assert [(job.start, job.stop) for job in pool.given] == [(0, 8)] * 4
    assert all(outcome.whole for outcome in outcomes)


# plans that cannot be judged


@pytest.mark.parametrize("race", [None, Race(first=0.2, growth=2, errors=3)])
@pytest.mark.parametrize("place", range(3))
def test_a_plan_that_fails_gets_the_worst_reward(residual: Problem, race: Race | None, place: int) -> None:
    *good, bad = some_plans(residual, 4)
    alone = objective_by(Table(by_size), residual, race=race).evaluate(good)
    objective = objective_by(Table(by_size, failing=frozenset({bad.kept})), residual, race=race)
    outcomes = objective.evaluate([*good[:place], bad, *good[place:]])
    failed = outcomes.pop(place)
    assert failed.failed is not None
    assert "NaN or infinite" in failed.failed
    assert (failed.plan, failed.feasible, failed.whole, failed.metrics.samples) == (bad, False, False, 0)
    assert failed.reward == min(outcome.reward for outcome in outcomes)
    assert failed.score == min(outcome.score for outcome in outcomes)
    assert failed.as_json()["failed"] == failed.failed
    if race is None:
        assert timeless(outcomes) == timeless(alone)


def test_a_plan_that_fails_is_not_tried_again_nor_a_rival(residual: Problem) -> None:
    *good, bad = some_plans(residual, 4)
    table = Table(by_size, failing=frozenset({bad.kept}))
    objective = objective_by(table, residual, race=RACE)
    objective.evaluate(good)
    expected = timeless(objective.evaluate(good))
    assert timeless(objective.evaluate(good, against=bad)) == expected
    objective.evaluate([bad])
    assert [job.kept for job in table.asked].count(bad.kept) == 1


def test_nothing_is_known_to_be_worst_before_the_first_plan(residual: Problem) -> None:
    plan = some_plans(residual, 1)[0]
    objective = objective_by(Table(by_size, failing=frozenset({plan.kept})), residual)
    with pytest.raises(RuntimeError, match=r"first plan that was evaluated could not be judged: .*NaN or infinite"):
        objective.evaluate([plan])


def test_outputs_that_are_not_finite_are_the_plans_failure() -> None:
    ready = prepared(tiny_task(), repair=UNREPAIRED)
    evaluator: Any = ready.objective.uncharged.pool._evaluator  # type: ignore[attr-defined]
    outcome = ready.objective.uncharged.evaluate([ready.structure.dense])[0]
    evaluator._ordered.network.conv1.__dict__["weight"].fill_(torch.nan)
    plan = ready.structure.plan(ready.structure.floor)
    failed = ready.objective.uncharged.evaluate([plan])[0]
    assert failed.failed is not None
    assert f"keeps {list(plan.kept)} units" in failed.failed
    assert failed.reward == outcome.reward


def test_no_plans_have_no_outcomes(residual: Problem) -> None:
    objective = objective_by(Table(by_size), residual, race=RACE)
    assert objective.evaluate([]) == objective.evaluate([], against=residual.structure.dense) == []


# losses one by one


def small_and_large(kept: tuple[int, ...], batch: int, block: int) -> float:
    """Plans of fewer units lose more; noise is of the same size for all but the dense one, which loses nothing."""
    noise = np.random.default_rng([*kept, batch, block]).normal()
    return 0.0 if kept == DENSE_KEPT else -(sum(DENSE_KEPT) - sum(kept)) + 0.9 * noise


DENSE_KEPT: tuple[int, ...] = ()


@pytest.fixture
def losing(residual: Problem, monkeypatch: pytest.MonkeyPatch) -> list[PruningPlan]:
    """The dense plan, one that loses much and one that loses little."""
    monkeypatch.setattr("tests.evaluation.test_objective.DENSE_KEPT", residual.structure.dense.kept)
    nearly = residual.structure.units
    nearly[0] -= 1
    return [
        residual.structure.dense,
        residual.structure.plan(residual.structure.floor),
        residual.structure.plan(nearly),
    ]


def test_a_loss_is_judged_until_it_is_known_well(residual: Problem, losing: list[PruningPlan]) -> None:
    table = Table(small_and_large)
    objective = objective_by(table, residual, batches=40, race=RACE)
    dense, much, little = objective.estimate(losing, reference=losing[0])
    whole = objective_by(Table(small_and_large), residual, batches=40).evaluate(losing, whole=True)
    assert dense.whole
    assert not much.whole
    assert much.metrics.samples < little.metrics.samples
    for outcome, true in zip((dense, much, little), whole, strict=True):
        assert dense.score - outcome.score == pytest.approx(whole[0].score - true.score, rel=0.3)
    assert table.batches_judged < 3 * 40


def test_without_races_every_loss_is_judged_on_all_samples(residual: Problem, losing: list[PruningPlan]) -> None:
    for table, race in ((Table(small_and_large), None), (Table(small_and_large, divisible=False), RACE)):
        outcomes = objective_by(table, residual, race=race).estimate(losing, reference=losing[0])
        assert all(outcome.whole for outcome in outcomes)


def test_a_plan_that_fails_loses_as_much_as_the_worst(residual: Problem, losing: list[PruningPlan]) -> None:
    failing = frozenset({losing[1].kept})
    objective = objective_by(Table(small_and_large, failing), residual, batches=40, race=RACE)
    dense, failed, little = objective.estimate(losing, reference=losing[0])
    assert failed.failed is not None
    assert failed.score == little.score < dense.score


def test_equal_plans_that_lose_nothing_end_at_all_samples(residual: Problem, losing: list[PruningPlan]) -> None:
    objective = objective_by(Table(lambda kept, batch, block: -1.0), residual, batches=8, race=RACE)
    assert all(outcome.whole for outcome in objective.estimate(losing, reference=losing[0]))


def test_seconds_of_a_plan_are_those_of_its_second_batch(residual: Problem, losing: list[PruningPlan]) -> None:
    table = Table(by_size, failing=frozenset({losing[1].kept}))
    objective = objective_by(table, residual, batches=8)
    assert objective.seconds_per_plan(losing[0]) == 8 * 0.125
    assert objective.seconds_per_plan(losing[1]) is None
    assert table.batches_judged == 4
    assert objective_by(Table(by_size), residual, batches=1).seconds_per_plan(losing[0]) == 0.125


def test_seconds_of_a_plan_are_those_of_now_whatever_is_known(residual: Problem, losing: list[PruningPlan]) -> None:
    table = Table(by_size)
    objective = objective_by(table, residual, batches=8)
    outcome = objective.evaluate(losing[:1])[0]
    before = table.batches_judged
    assert objective.seconds_per_plan(losing[0]) == 8 * 0.125
    assert table.batches_judged == before + 2
    assert objective.evaluate(losing[:1])[0] == outcome
    assert table.batches_judged == before + 2
