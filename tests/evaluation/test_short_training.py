from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autoprune.evaluation import judge
from autoprune.evaluation.evaluator import TrainedEvaluator
from autoprune.evaluation.judge import Judge
from autoprune.evaluation.race import Race
from autoprune.evaluation.short_training import ShortTraining
from autoprune.problem.problem import Problem
from tests.evaluation.tables import timeless
from tests.models import random_plan
from tests.tasks import prepared, tiny_task

TRAINING = ShortTraining(steps=5, learning_rate=0.05, batch_size=16)


def ready_for(name: str = "residual", **changes: Any) -> Problem:
    return prepared(tiny_task(name), **({"training": TRAINING} | changes))


def test_training_changes_the_outcome_and_lowers_the_loss_that_it_trains() -> None:
    trained, plain = (
        ready_for(training=ShortTraining(steps=8, learning_rate=0.1, batch_size=32)),
        ready_for(training=None),
    )
    plan = random_plan(plain.structure, seed=0)
    assert (
        trained.objective.uncharged.evaluate([plan])[0].metrics.loss
        != plain.objective.uncharged.evaluate([plan])[0].metrics.loss
    )
    evaluator: Any = trained.objective.uncharged.pool._evaluator  # type: ignore[attr-defined]
    assert isinstance(evaluator, TrainedEvaluator)
    network = evaluator._trained(plan.kept)
    on_train = Judge(trained.task, trained.task.data.train)
    assert on_train(network).loss < on_train(plain.pruned(plan)).loss - 0.02


@pytest.mark.parametrize("name", ["residual", "flattened"])
def test_equal_plans_have_equal_outcomes(name: str) -> None:
    """One of the networks has Dropout, which draws from a generator that is everybody's."""
    one, other = ready_for(name), ready_for(name)
    plans = [random_plan(one.structure, seed=seed) for seed in range(3)]
    before = torch.get_rng_state()
    expected = timeless(one.objective.uncharged.evaluate(plans))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert timeless(other.objective.uncharged.evaluate(plans[::-1]))[::-1] == expected


def test_the_dense_network_is_left_alone() -> None:
    ready = ready_for()
    before = {key: value.clone() for key, value in ready.task.model.state_dict().items()}
    ready.objective.uncharged.evaluate([random_plan(ready.structure, seed=0), ready.structure.dense])
    assert all(torch.equal(value, before[key]) for key, value in ready.task.model.state_dict().items())


def test_it_is_never_raced() -> None:
    ready = ready_for(race=Race(first=0.1, growth=3, errors=3), batch_size=10)
    plans = [random_plan(ready.structure, seed=seed) for seed in range(4)]
    outcomes = ready.objective.uncharged.evaluate(plans, against=ready.structure.dense)
    assert all(outcome.whole and outcome.metrics.samples == 40 for outcome in outcomes)


def test_the_score_is_of_what_was_judged() -> None:
    ready = ready_for()
    outcome = ready.objective.uncharged.evaluate([ready.structure.dense])[0]
    assert outcome.score == judge.kl(outcome.metrics)


def test_a_training_that_breaks_is_the_plans_failure() -> None:
    ready = ready_for("flattened", training=ShortTraining(steps=20, learning_rate=1e30))
    with pytest.raises(RuntimeError, match=r"could not be judged.*lower the learning rate"):
        ready.objective.uncharged.evaluate([ready.structure.dense])


def test_what_was_judged_after_one_training_is_not_taken_for_another(tmp_path: Path) -> None:
    """Nor for none; whatever the score makes of the metrics is no matter."""
    changes: dict[str, dict[str, Any]] = {
        "first": {},
        "the same": {"score": judge.accuracy},
        "steps": {"training": replace(TRAINING, steps=6)},
        "rate": {"training": replace(TRAINING, learning_rate=0.06)},
        "batch": {"training": replace(TRAINING, batch_size=17)},
        "none": {"training": None},
    }
    keys = {}
    for name, change in changes.items():
        ready = ready_for(**change, store=tmp_path)
        assert ready.objective.uncharged.store is not None
        keys[name] = ready.objective.uncharged.store.key
        assert "0x" not in ready.objective.uncharged.store.description
        ready.close()
    assert keys.pop("the same") == keys["first"]
    assert len(set(keys.values())) == len(keys)
