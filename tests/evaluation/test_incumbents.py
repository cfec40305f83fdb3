import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from autoprune.evaluation.incumbents import MOST, Incumbent, describe_anytime, spaced
from autoprune.evaluation.judge import Judge
from autoprune.repair.repair import Repair
from tests.models import random_plan
from tests.tasks import prepared, tiny_task


def incumbents(*evaluations: int) -> list[Incumbent]:
    return [Incumbent(outcome=None, evaluation=e, seconds=0.1 * e, agent_seconds=0.0) for e in evaluations]  # type: ignore[arg-type]


@given(st.sets(st.integers(1, 5000), min_size=1, max_size=200), st.integers(1, 40))
def test_a_few_are_kept_with_the_first_and_the_last(evaluations: set[int], most: int) -> None:
    every = incumbents(*sorted(evaluations))
    kept = spaced(every, most=most)
    assert len(kept) <= most
    assert kept[-1] is every[-1] or most == 1
    assert kept[0] is every[0]
    assert [x.evaluation for x in kept] == sorted({x.evaluation for x in kept})
    if len(every) == 2 <= most:
        assert kept == every


def test_none_of_none() -> None:
    assert spaced([]) == []


def test_they_are_denser_where_the_search_was_young() -> None:
    kept = [x.evaluation for x in spaced(incumbents(*range(1, 1001)))]
    assert len(kept) <= MOST
    assert sum(evaluation <= 100 for evaluation in kept) > sum(evaluation > 100 for evaluation in kept)


def test_they_are_judged_on_samples_that_no_reward_has_seen() -> None:
    """Without repairs a candidate's network is the one that is handed out, so its numbers are known."""
    ready = prepared(tiny_task(), repair=Repair(batch_norm=False), proxy_samples=20, batch_size=20)
    plans = [random_plan(ready.structure, seed=seed) for seed in range(3)]
    expected = [Judge(ready.task, ready.held_out[:20])(ready.pruned(plan)) for plan in plans]
    for found, wanted in zip(ready.held_out_metrics(plans), expected, strict=True):
        assert found is not None
        assert dataclasses.asdict(found) == pytest.approx(dataclasses.asdict(wanted), abs=1e-4)


def test_fewer_held_out_samples_are_all_of_them() -> None:
    ready = prepared(tiny_task(), proxy_samples=50, repair=Repair(batch_norm=False))
    (found,) = ready.held_out_metrics([ready.structure.dense])
    assert found is not None
    assert (found.samples, found.agreement) == (10, 1.0)


def test_a_plan_that_cannot_be_judged_is_left_open() -> None:
    broken = False

    def forward(network: nn.Module, inputs: Tensor) -> Tensor:
        outputs: Tensor = network(inputs)
        return outputs / 0 if broken and network is not task.model else outputs

    task = tiny_task(forward=forward)
    ready = prepared(task)
    plans = [random_plan(ready.structure, seed=0)]
    assert ready.held_out_metrics(plans) != [None]
    broken = True
    assert ready.held_out_metrics(plans) == [None]


def test_the_record_has_the_references_judged_alike() -> None:
    ready = prepared(tiny_task())
    plans = [random_plan(ready.structure, seed=seed) for seed in range(4)]
    outcomes = ready.objective.uncharged.evaluate(plans)
    every = [Incumbent(outcome, i, 0.5 * i, 0.1 * i) for i, outcome in enumerate(outcomes, start=1)]
    record = describe_anytime(every, {"uniform": plans[0]}, judge=ready.held_out_metrics, score=ready.spec.score)
    assert [entry["evaluation"] for entry in record["incumbents"]] == [1, 2, 3, 4]
    assert record["references"]["uniform"] == record["incumbents"][0]["held_out"]
    assert record["incumbents"][0]["held_out"] == -record["incumbents"][0]["metrics"]["kl"]
    assert record["samples"] == len(ready.held_out) == 20
