"""Other ways to keep an agent to the budget than by projection."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.evaluation.metered import POLICY
from autoprune.evaluation.outcome import Metrics, Outcome
from autoprune.plan import PruningPlan
from autoprune.search.constraint import COLLAPSED, Constraint, Free, Lagrangian, Penalty, Projection, rewarded
from tests.sampling import covering
from tests.search.known import KNOWN
from tests.search.learners import learnable
from tests.search.searches import search
from tests.search.toys import additive, weights

STRUCTURE, PROJECTOR = additive(weights("a", units=10), weights("b", units=10), prices=[2, 2], limit=20)
BUDGET = PROJECTOR.budget
CONSTRAINTS = ("projection", "penalty", "lagrangian", "free")


def outcome(*kept: int, reward: float = -1.0, accuracy: float = 0.9) -> Outcome:
    """Costs 2 · kept units, of a budget of 20."""
    plan = PruningPlan(("a", "b"), (10, 10), kept)
    feasible, metrics = BUDGET.meets(np.array(kept)), Metrics(accuracy, 1.0, 0.1, 0.9, 10)
    return Outcome(plan, metrics, {}, reward, reward, feasible, 0.0, whole=True)


WITHIN, ON, OVER = outcome(2, 3), outcome(5, 5), outcome(10, 5)  # half of the budget, all of it, half too much


def test_projection_and_penalty() -> None:
    assert Projection().rewards([WITHIN, ON, OVER], BUDGET) == [-1, -1, -1]
    assert Penalty(3.0).rewards([WITHIN, ON, OVER], BUDGET) == [-1, -1, -2.5]
    assert [Projection().projected, Penalty(1.0).projected, Free().projected] == [True, False, False]


def test_lagrangian_pays_for_what_is_saved_and_adapts_to_the_mean() -> None:
    constraint = Lagrangian(multiplier=1.0, rate=0.6)
    assert constraint.rewards([WITHIN, ON, OVER, OVER], BUDGET) == [-0.5, -1, -1.5, -1.5]
    assert constraint.multiplier == pytest.approx(1 + 0.6 * 0.125)
    constraint.rewards([WITHIN], BUDGET)
    assert constraint.multiplier == pytest.approx(1.075 - 0.3)


@given(st.floats(0, 5), st.floats(0.01, 3), st.lists(st.tuples(st.integers(1, 10), st.integers(1, 10)), min_size=1))
def test_the_multiplier_rises_above_the_budget_falls_below_and_is_never_negative(
    multiplier: float, rate: float, plans: list[tuple[int, int]]
) -> None:
    constraint = Lagrangian(multiplier, rate)
    for kept in plans:
        before = constraint.multiplier
        constraint.rewards([outcome(*kept)], BUDGET)
        share = sum(kept) / 10
        assert constraint.multiplier >= 0
        if share > 1:
            assert constraint.multiplier > before
        elif share < 1:
            assert constraint.multiplier < before or before == 0
        else:
            assert constraint.multiplier == before


def test_free_is_minus_error_times_log_cost() -> None:
    constraint = Free()
    found = constraint.rewards([WITHIN, ON, OVER, outcome(5, 5, accuracy=1.0)], BUDGET)
    assert found == pytest.approx([-0.1 * math.log(1 + share / COLLAPSED) for share in (0.5, 1, 1.5)] + [0])
    assert found[0] > found[1] > found[2]


@pytest.mark.parametrize("reward", [-5.0, 0.0, 5.0])
def test_free_takes_what_could_not_be_judged_for_all_wrong(reward: float) -> None:
    """Its reward is of another scale: accuracies are positive, and every reward here is negative."""
    failed = replace(outcome(5, 5, reward=reward, accuracy=math.nan), failed="its outputs are NaN", feasible=False)
    worst = Free().rewards([outcome(5, 5, accuracy=0.0)], BUDGET)
    assert Free().rewards([failed], BUDGET) == worst


def test_only_the_reward_is_another() -> None:
    told = rewarded([WITHIN, OVER], Penalty(2.0), BUDGET)
    assert [replace(each, reward=-1.0) for each in told] == [WITHIN, OVER]


AGENTS = {
    "ppo": {},
    "ppo from nothing": {"prior": "none", "max_log_correction": None},
    "ppo by group": {"mode": "layerwise", "prior": "uniform"},
    "edit_ppo of three": {"prior": "uniform", "length": 3},
    "sac": {"prior": "uniform", "agent__experience__updates_per_episode": 2},
}


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("agent", covering(list(AGENTS), ("ppo", "edit_ppo of three")))
def test_every_constraint_ends_inside_the_budget_and_spends_all(agent: str, constraint: str, tmp_path: Path) -> None:
    seen: list[Any] = []
    known = KNOWN["chain"]
    problem = learnable(known, tmp_path, limit=46, seen_by=seen)
    plan = search(agent.split()[0], constraint=constraint, **AGENTS[agent])(problem, rng=np.random.default_rng(0))
    assert len(seen) == problem.objective.spent == 46
    assert known.projector.budget.meets(np.array(plan.kept))
    assert plan == max((each for _, each in seen if each.feasible), key=lambda each: each.reward).plan
    searched = [each.feasible for phase, each in seen if phase == "search"]
    if constraint == "projection":
        assert all(searched)
    else:
        assert not all(searched), "plans may exceed the budget"


@pytest.mark.parametrize(
    ("name", "constraint"),
    [*((name, each) for name in ("ppo", "edit_ppo") for each in CONSTRAINTS[1:]), ("critic_guided", "lagrangian")],
)
def test_an_objective_that_pays_for_exceeding_the_budget_gets_no_such_plan(
    name: str, constraint: str, tmp_path: Path
) -> None:
    """Its reward is the plan's cost, a thousandfold, so every plan outside is better than those inside."""
    known = replace(KNOWN["separable"], loses=lambda gone: 1000 * gone.sum(axis=-1))
    seen: list[Any] = []
    problem = learnable(known, tmp_path, limit=40, seen_by=seen)
    options = {"prior": "uniform"} if name != "ppo" else {"prior": "none", "max_log_correction": None}
    plan = search(name, constraint=constraint, **options)(problem, rng=np.random.default_rng(0))
    assert known.projector.budget.meets(np.array(plan.kept))
    best = max(seen, key=lambda each: each[1].reward)[1]
    assert not best.feasible or constraint == "free", "there was something to resist, but for those who save cost"


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_plans_outside_the_budget_are_never_raced(
    constraint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = learnable(KNOWN["chain"], tmp_path, limit=40)
    evaluate, raced = problem.objective.evaluate, set[bool]()

    def watched(plans: Any, **options: Any) -> Any:
        if options.get("phase") != POLICY:  # those are judged whole, whatever the constraint
            raced.add(options.get("raced", True))
        return evaluate(plans, **options)

    search_ = search("ppo", constraint=constraint, prior="none", max_log_correction=None)
    monkeypatch.setattr(problem.objective, "evaluate", watched)
    search_(problem, rng=np.random.default_rng(0))
    assert raced == {constraint == "projection"}


def test_a_multiplier_that_adapted_is_forgotten_by_the_next_search(tmp_path: Path) -> None:
    run, histories = search("ppo", constraint="lagrangian", prior="uniform"), []
    for attempt in range(2):
        seen: list[Any] = []
        run(learnable(KNOWN["chain"], tmp_path / str(attempt), limit=46, seen_by=seen), rng=np.random.default_rng(0))
        histories.append([each.plan.kept for _, each in seen])
    assert histories[0] == histories[1]


def test_what_is_told_of_the_prior_is_what_the_constraint_says(tmp_path: Path) -> None:
    """−error · log(cost) is another scale than a loss: edits that mixed them would begin at the wrong plan for ever."""
    told: list[float] = []

    class Watched(Free):
        def rewards(self, outcomes: Any, budget: Any) -> list[float]:
            found = super().rewards(outcomes, budget)
            told.extend(found)
            return found

    constraint: Constraint = Watched()
    run = search("edit_ppo", prior="uniform")
    run.keywords["constraint"] = constraint
    seen: list[Any] = []
    run(learnable(KNOWN["chain"], tmp_path, limit=26, seen_by=seen), rng=np.random.default_rng(0))
    assert len(told) == 17, "the prior and two batches; the policy's own plans and the batch that is cut short are not"
    assert len(seen) == 26
