import numpy as np
import pytest

from autoprune.evaluation.metered import EvaluationsSpent, MeteredObjective
from autoprune.evaluation.outcome import Outcome
from autoprune.evaluation.race import Race
from autoprune.plan import PruningPlan
from tests.evaluation.tables import Table, by_size, objective_by, timeless
from tests.models import random_plan
from tests.tasks import prepared, tiny_task


def test_every_plan_is_charged_and_recorded_before_the_answer() -> None:
    ready, seen = prepared(tiny_task()), []
    metered = MeteredObjective(
        ready.objective.uncharged, limit=5, record=lambda o, n, phase: seen.append((o.plan, n, phase))
    )
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
    metered = MeteredObjective(ready.objective.uncharged, limit=40, record=lambda o, n, phase: outcomes.append(o))
    metered.evaluate([ready.structure.dense])
    assert metered.best is None  # the dense network loses nothing, and is not inside the budget
    metered.evaluate([random_plan(ready.structure, seed=seed) for seed in range(39)])
    assert metered.best == max((o for o in outcomes if o.feasible), key=lambda o: o.reward)


def raced(
    *, limit: int, failing: bool = False
) -> tuple[MeteredObjective, list[tuple[Outcome, str]], list[PruningPlan]]:
    """An objective whose races go on for twenty batches, what it recorded, and different plans for it."""
    ready, seen = prepared(tiny_task()), list[tuple[Outcome, str]]()
    drawn = (random_plan(ready.structure, seed=seed) for seed in range(200))
    plans = list(
        {
            p.kept: p for p in drawn if ready.projector.budget.cost(np.array(p.kept)) <= ready.projector.budget.limit
        }.values()
    )
    table = Table(by_size, failing=frozenset({plans[1].kept}) if failing else frozenset())
    objective = objective_by(table, ready, batches=20, race=Race(first=0.1, growth=3, errors=3))
    record = lambda outcome, number, phase: seen.append((outcome, phase))  # noqa: E731
    return MeteredObjective(objective, limit=limit, record=record), seen, plans


def test_only_the_search_itself_is_raced() -> None:
    metered, seen, plans = raced(limit=40)
    assert all(outcome.whole for outcome in metered.evaluate(plans[:8], phase="curves"))
    assert not all(outcome.whole for outcome in metered.evaluate(plans[8:24]))
    assert [phase for _, phase in seen] == ["curves"] * 8 + ["search"] * 16


def test_the_best_was_judged_whole() -> None:
    metered, seen, plans = raced(limit=40)
    for start in range(0, 24, 6):
        metered.evaluate(plans[start : start + 6])
    whole = [outcome for outcome, _ in seen if outcome.whole]
    assert len(whole) < len(seen)
    assert metered.best is max(whole, key=lambda outcome: outcome.reward)


def test_plans_are_raced_against_the_best_so_far() -> None:
    metered, _, plans = raced(limit=40)
    best = max(metered.evaluate(plans[:6], phase="curves"), key=lambda outcome: outcome.reward)
    worse = min(plans, key=lambda plan: sum(plan.kept))
    assert metered.best is best
    assert not metered.evaluate([worse])[0].whole
    assert timeless([metered.best]) == timeless([best])


def test_a_plan_that_failed_is_charged_and_never_the_best() -> None:
    metered, seen, plans = raced(limit=3, failing=True)
    outcomes = metered.evaluate(plans[:3], phase="curves")
    assert outcomes[1].failed is not None
    assert metered.spent == len(seen) == 3
    assert metered.best in [None, outcomes[0], outcomes[2]]


def test_what_was_recorded_is_whatever_the_answer_was() -> None:
    metered, seen, plans = raced(limit=4)
    with pytest.raises(EvaluationsSpent, match="all 4 evaluations are spent"):
        metered.evaluate(plans[:6])
    assert [outcome.plan for outcome, _ in seen] == plans[:4]


def test_no_evaluations_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one evaluation, got 0"):
        MeteredObjective(prepared(tiny_task()).objective.uncharged, limit=0, record=lambda *_: None)
