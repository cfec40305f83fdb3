import pytest

from autoprune.evaluation.metered import EvaluationsSpent, MeteredObjective
from autoprune.evaluation.outcome import Outcome
from tests.models import random_plan
from tests.tasks import prepared, tiny_task


def test_every_plan_is_charged_and_recorded_before_the_answer() -> None:
    ready, seen = prepared(tiny_task()), []
    metered = MeteredObjective(ready.objective, limit=5, record=lambda o, n, phase: seen.append((o.plan, n, phase)))
    plan, other = random_plan(ready.structure, seed=0), random_plan(ready.structure, seed=1)
    metered.evaluate([plan, other, plan], phase="curves")
    assert seen == [(plan, 1, "curves"), (other, 2, "curves"), (plan, 3, "curves")]
    with pytest.raises(EvaluationsSpent):
        metered.evaluate([other, plan, other])
    assert [n for _, n, _ in seen] == [1, 2, 3, 4, 5]
    assert (metered.spent, metered.left) == (5, 0)
    with pytest.raises(EvaluationsSpent):
        metered.evaluate([plan])
    assert len(seen) == 5


def test_the_best_is_feasible_and_has_the_highest_reward() -> None:
    ready, outcomes = prepared(tiny_task()), list[Outcome]()
    metered = MeteredObjective(ready.objective, limit=40, record=lambda o, n, phase: outcomes.append(o))
    metered.evaluate([ready.structure.dense])
    assert metered.best is None  # the dense network loses nothing, and is not inside the budget
    metered.evaluate([random_plan(ready.structure, seed=seed) for seed in range(39)])
    assert metered.best == max((o for o in outcomes if o.feasible), key=lambda o: o.reward)


def test_no_evaluations_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one evaluation, got 0"):
        MeteredObjective(prepared(tiny_task()).objective, limit=0, record=lambda *_: None)
