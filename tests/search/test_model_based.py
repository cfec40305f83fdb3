"""Searches that fit a model of what plans are worth, and a policy that learns in it."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoprune.agent.bundle import load_policy, load_training
from autoprune.agent.card import card
from autoprune.env.env_spec import EnvFactory, EnvSpec
from autoprune.evaluation.metered import POLICY, SEARCH
from autoprune.prior.closed_form_plan import closed_form_plans, reader_errors
from autoprune.prior.starts import prior_of
from autoprune.search.model_based import under
from autoprune.search.paid_plans import INFORMED
from autoprune.search.plan_model import PlanModel
from autoprune.search.policy_trials import own_evaluations, play
from tests.search.known import KNOWN, KnownProblem, least_loss
from tests.search.learners import learnable, under_budgets
from tests.search.searches import search
from tests.search.toys import additive, weights
from tests.tasks import prepared, tiny_task

SHORT: dict[str, Any] = {
    "imagination__updates": 2,
    "imagination__candidates_per_evaluation": 8,
    "agent__experience__episodes": 32,
}


def test_a_model_ranks_plans_that_it_has_not_seen() -> None:
    rng, units = np.random.default_rng(0), np.array([16, 8, 12])
    plans = rng.integers(1, units + 1, (80, 3))
    rewards = -((np.log(plans / units) + np.array([0.2, 0.7, 1.0])) ** 2).sum(axis=1)
    model = PlanModel(units)
    model.fit(plans[:60], rewards[:60])
    order = model.expected(plans[60:]).argsort()
    assert np.corrcoef(order.argsort(), rewards[60:].argsort().argsort())[0, 1] > 0.9
    assert (model.expected(plans[60:], pessimism=1.0) <= model.expected(plans[60:])).all()
    shuffled = PlanModel(units)
    shuffled.fit(plans[:60], rng.permutation(rewards[:60]))  # the control
    order = shuffled.expected(plans[60:]).argsort()
    assert np.corrcoef(order.argsort(), rewards[60:].argsort().argsort())[0, 1] < 0.9


def test_a_model_follows_a_prior_that_is_right_and_leaves_one_that_is_wrong() -> None:
    rng, units = np.random.default_rng(0), np.array([16, 8, 12])
    plans = rng.integers(1, units + 1, (80, 3))
    lost = ((np.log(plans / units) + np.array([0.2, 0.7, 1.0])) ** 2).sum(axis=1)
    worth = dict(zip(map(tuple, plans.tolist()), -np.log(lost + 0.01), strict=True))
    wrong = dict(zip(worth, rng.permutation(list(worth.values())), strict=True))
    agreements = []
    for thought in (worth, wrong):
        model = PlanModel(units, prior=partial(_looked_up, thought))
        model.fit(plans[:6], -lost[:6])
        order = model.expected(plans[6:]).argsort().argsort()
        agreements.append(np.corrcoef(order, (-lost[6:]).argsort().argsort())[0, 1])
        assert model.batch(plans[6:], count=3, kappa=0.0)[0] == model.expected(plans[6:]).argmax()
    assert agreements[0] > 0.9
    assert agreements[1] < agreements[0] - 0.2, "the control"


def _looked_up(values: dict[Any, float], kept: Any) -> Any:
    return np.array([values[tuple(row)] for row in kept.tolist()])


def test_a_batch_has_no_plan_twice_and_spreads() -> None:
    model = PlanModel(np.array([10, 10]))
    plans = np.array([[k, 11 - k] for k in range(1, 11)])
    model.fit(plans[::3], np.arange(len(plans[::3]), dtype=float))
    chosen = model.batch(plans, count=4, kappa=3.0)
    assert len(set(chosen)) == 4
    assert model.batch(plans[:2], count=4, kappa=0.0) in ([0, 1], [1, 0])


@pytest.mark.parametrize("name", ["bayesian", "model_based"])
def test_it_finds_the_best_plan_of_a_known_problem(name: str, tmp_path: Path) -> None:
    known = KNOWN["chain"]
    problem = learnable(known, tmp_path, limit=60)
    plan = search(name, **(SHORT if name == "model_based" else {}))(problem, rng=np.random.default_rng(0))
    assert problem.objective.spent == 60
    assert known.regret(plan) < 0.1, (known.loss(plan.kept), least_loss(known))


@pytest.mark.parametrize("changes", [{}, {"mode": "layerwise", "observation": "groups"}])
def test_its_policy_makes_the_best_plan_and_is_saved(changes: Any, tmp_path: Path) -> None:
    known, history = KNOWN["chain"], list[Any]()
    problem = learnable(known, tmp_path, limit=60, seen_by=history)
    search("model_based", **SHORT, **changes)(problem, rng=np.random.default_rng(0))
    own = [outcome for phase, outcome in history if phase == POLICY]
    assert history[-1][1] is own[-1], "the last evaluation is its"
    assert len(history) == 60
    assert known.regret(own[-1].plan) < 0.5
    training = load_training(tmp_path / "policy")
    assert training.environment is not None
    again = learnable(known, tmp_path, limit=99)
    spec = EnvSpec(**training.environment)
    factory = EnvFactory(again, spec, own_evaluations(again, projected=True), spec.prior_of(again))
    assert play(factory.one(), load_policy(tmp_path / "policy")).plan == own[-1].plan


@pytest.mark.parametrize(
    ("changes", "limit", "message"),
    [
        ({"mode": "edit", "edits": 1, "length": 1, "observation": "groups"}, 60, "in agent.env.mode=one_shot or"),
        ({"imagination__ranking": "best"}, 60, r"agent.imagination.ranking"),
        ({}, 5, "needs 9 evaluations: 1 for where it begins"),
    ],
)
def test_what_does_not_apply_is_an_error(changes: Any, limit: int, message: str, tmp_path: Path) -> None:
    problem = learnable(KNOWN["chain"], tmp_path, limit=limit)
    with pytest.raises(Exception, match=message):
        search("model_based", **changes)(problem, rng=np.random.default_rng(0))
    assert problem.objective.spent == 0


def test_one_search_serves_several_budgets_and_what_lies_between(tmp_path: Path) -> None:
    known, history = KNOWN["chain"], list[Any]()
    problem = under_budgets(learnable(known, tmp_path, limit=75, seen_by=history))
    budgets = ["weights:0.35", "weights:0.65"]
    search("model_based", **SHORT, budgets=budgets)(problem, rng=np.random.default_rng(0))
    assert problem.objective.spent == 75
    own = [outcome for phase, outcome in history if phase == POLICY]
    assert len(own) == 3, "at the end, one for each budget"
    assert own[-1].feasible, "the run's own budget last"
    for outcome, budget in zip(own, ("weights:0.65", "weights:0.35", None), strict=True):
        inside = problem.projector if budget is None else under(problem, budget).projector
        met = [each.reward for _, each in history if inside.budget.meets(np.array(each.plan.kept))]
        assert outcome.reward == max(met), "the policy makes the best plan that was met under each"
    training, policy = load_training(tmp_path / "policy"), load_policy(tmp_path / "policy")
    assert training.budgets == {"weights": (pytest.approx(0.35, abs=0.02), pytest.approx(0.65, abs=0.02))}
    assert "| weights | 0.35 to 0.65 of dense |" in card(policy, training)
    spec, regrets = EnvSpec(**(training.environment or {})), []
    for share in (0.35, 0.42, 0.5, 0.58, 0.65):
        other = under(under_budgets(learnable(known, tmp_path, limit=9)), f"weights:{share}")
        factory = EnvFactory(other, spec, own_evaluations(other, projected=True), spec.prior_of(other))
        plan, best = np.array(play(factory.one(), policy).plan.kept), replace(known, projector=other.projector)
        assert other.projector.budget.meets(plan)
        assert (other.projector.fill(plan, plan + 1.0) == plan).all(), "nothing more fits"
        regrets.append(best.regret(other.structure.plan(plan)))
    assert max(regrets) < 1, regrets
    assert np.mean(regrets) < 0.5, regrets


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        (["weights:0.5"], r"agent.budgets.*'weights:0.5'"),
        (["weights:0.3", "weights:0.3"], "got 'weights:0.3' twice"),
        (["weights:0.3"] * 40, r"41 budgets.*agent.agent.experience.episodes=32"),
    ],
)
def test_budgets_that_a_policy_cannot_serve_are_an_error(budgets: list[str], message: str, tmp_path: Path) -> None:
    problem = under_budgets(learnable(KNOWN["chain"], tmp_path, limit=400))
    with pytest.raises(ValueError, match=message):
        search("model_based", **SHORT, budgets=budgets)(problem, rng=np.random.default_rng(0))
    assert problem.objective.spent == 0


def test_closed_form_plans_know_which_outputs_the_loss_depends_on(tmp_path: Path) -> None:
    problem = prepared(tiny_task()).limited(9, folder=tmp_path)
    errors = reader_errors(problem)
    assert errors is not None
    assert all(weight > 0 for readers in errors for weight, _ in readers)
    plans = closed_form_plans(problem.structure, problem.projector, errors)
    assert 1 <= len(plans) <= 4
    prior = prior_of(problem, start="closed_form")
    assert problem.objective.spent == len(plans)
    assert prior.outcome.reward == max(outcome.reward for outcome in (prior.outcome, *prior.others))
    heavier = [*errors[:-1], [(1e8 * weight, error) for weight, error in errors[-1]]]
    moved = closed_form_plans(problem.structure, problem.projector, heavier)
    assert max(plan.kept[-1] for plan in moved) > max(plan.kept[-1] for plan in plans), "what weighs more is kept"


def test_a_group_without_errors_lets_a_search_begin_at_the_uniform_plan(tmp_path: Path, caplog: Any) -> None:
    problem = learnable(KNOWN["chain"], tmp_path, limit=9)
    with caplog.at_level("INFO"):
        prior = prior_of(problem, start="closed_form")
    assert prior.outcome.plan == prior_of(problem, start="uniform").outcome.plan
    assert "least squares says nothing of" in caplog.text


@pytest.mark.parametrize("name", ["bayesian", "model_based"])
def test_no_plan_is_paid_for_twice_and_an_exhausted_search_ends_early(name: str, tmp_path: Path, caplog: Any) -> None:
    history = list[Any]()
    problem = learnable(KNOWN["few"], tmp_path, limit=60, seen_by=history)
    with caplog.at_level("INFO"):
        plan = search(name, **(SHORT if name == "model_based" else {}))(problem, rng=np.random.default_rng(0))
    assert problem.objective.spent < 20
    assert f"the search ends after {problem.objective.spent - (name == 'model_based')} of 60 evaluations" in caplog.text
    assert KNOWN["few"].regret(plan) == 0
    tried = [outcome.plan.kept for phase, outcome in history if phase == SEARCH]
    assert len(tried) == len(set(tried))


def test_a_model_of_few_plans_chooses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> list[int]:
        raise AssertionError("the model was asked")

    monkeypatch.setattr(PlanModel, "batch", refuse)
    few, enough = (learnable(KNOWN["chain"], tmp_path, limit=limit) for limit in (INFORMED, 2 * INFORMED))
    search("bayesian")(few, rng=np.random.default_rng(0))
    with pytest.raises(AssertionError, match="the model was asked"):  # the control
        search("bayesian")(enough, rng=np.random.default_rng(0))


def test_one_plan_is_all_there_is(tmp_path: Path) -> None:
    structure, projector = additive(weights("g0", units=4), prices=[1], limit=2)
    known = KnownProblem(structure, projector, lambda gone: gone.sum(axis=-1))
    for name in ("bayesian", "model_based"):
        problem = learnable(known, tmp_path, limit=20)
        plan = search(name, **(SHORT if name == "model_based" else {}))(problem, rng=np.random.default_rng(0))
        assert plan.kept == (2,)
        assert problem.objective.spent <= 2


def test_a_policy_that_learns_nothing_makes_the_plan_that_it_began_at(tmp_path: Path) -> None:
    history = list[Any]()
    problem = learnable(KNOWN["chain"], tmp_path, limit=30, seen_by=history)
    changes: dict[str, Any] = {"agent__hyperparameters__learning_rate": 1e-12, "imagination__imitation": 0}
    search("model_based", **SHORT, **changes)(problem, rng=np.random.default_rng(0))
    own = [outcome.plan for phase, outcome in history if phase == POLICY]
    assert own == [history[0][1].plan]
    assert max(outcome.reward for _, outcome in history) > history[0][1].reward, "the control: better ones were met"
