"""A policy from elsewhere proposes plans, and learning goes on from it, on problems whose optimum is known."""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra.utils import instantiate

from autoprune.agent.bundle import load_policy, load_training, save_policy
from autoprune.cli import conf_dir
from autoprune.env.transfer_features import ROW_FEATURES
from autoprune.env.transfer_task import transfer_price
from autoprune.problem.problem import Problem
from autoprune.search import few_shot
from autoprune.search import zero_shot as carried
from tests.agent.policies import ELSEWHERE
from tests.agent.policies import carried as random_policy
from tests.search.known import KNOWN, KnownProblem
from tests.search.learners import seen as with_features
from tests.search.learners import under_budgets
from tests.search.searches import search as configured

TRAINING = replace(
    ELSEWHERE,
    features=ROW_FEATURES,
    actions="corrections to the sensitivity plan",
    budgets={"weights": (0.2, 0.9)},
    max_log_correction=0.7,
    prior="sensitivity",
    curves=True,
)


def problem(name: str, folder: Path, *, limit: int, seen: list[Any], logged: dict[str, float] | None = None) -> Problem:
    known: KnownProblem = KNOWN[name]
    found = with_features(known.problem(folder, limit=limit, seen=seen))
    groups = found.structure.groups
    return replace(
        found,
        errors={group.name: np.linspace(1, 0, group.units + 1) for group in groups},
        log_agent=lambda metrics, step: None if logged is None else logged.update(metrics),
    )


@pytest.fixture(scope="module")
def modest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that has learned nothing: its critics say that losses add up."""
    folder = tmp_path_factory.mktemp("modest")
    policy = random_policy("mlp")
    with torch.no_grad():
        for name, weight in policy.network.named_parameters():
            if "head" in name:
                weight.zero_()
    save_policy(policy, folder, training=TRAINING)
    return folder


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy whose critics say anything."""
    folder = tmp_path_factory.mktemp("wild")
    save_policy(random_policy("gnn"), folder, training=TRAINING)
    return folder


@pytest.mark.parametrize("name", ["separable", "chain", "deceptive", "knapsack"])
def test_nothing_worse_than_the_known_plans_is_returned(name: str, modest: Path, wild: Path, tmp_path: Path) -> None:
    for policy in (modest, wild):
        history: list[Any] = []
        found = problem(name, tmp_path, limit=200, seen=history)
        plan = carried.search(found, rng=np.random.default_rng(0), policy=str(policy), candidates=6)
        judged = [outcome for phase, outcome in history if phase == "search"]
        assert 2 < len(judged) <= 8, "the sensitivity plan, the uniform one and the policy's"
        assert len({outcome.plan.kept for outcome in judged[2:]}) == len(judged) - 2
        assert all(outcome.feasible for outcome in judged)
        assert max(outcome.reward for outcome in judged) == next(o.reward for o in judged if o.plan == plan)


def test_it_spends_what_it_says(modest: Path, tmp_path: Path) -> None:
    history: list[Any] = []
    found = problem("chain", tmp_path, limit=200, seen=history)
    paid = transfer_price(found)
    carried.search(found, rng=np.random.default_rng(0), policy=str(modest), candidates=3)
    assert found.objective.spent == len(history) == paid + 3
    with pytest.raises(ValueError, match=f"at least {paid + 1} evaluations: {paid} for single-group curves"):
        carried.search(
            problem("chain", tmp_path, limit=paid, seen=[]),
            rng=np.random.default_rng(0), policy=str(modest), candidates=3,
        )  # fmt: skip


def test_what_does_not_fit_is_refused(modest: Path, tmp_path: Path) -> None:
    found, rng = problem("chain", tmp_path, limit=200, seen=[]), np.random.default_rng(0)
    with pytest.raises(ValueError, match="policy=FOLDER, policy=shipped"):
        carried.search(found, rng=rng, policy=None, candidates=3)
    for changes, message in (
        ({"budgets": {"weights": (0.6, 0.9)}}, r"trained under weights:0.6..0.9, and 'weights:\d+' is 0.5\d* of dense"),
        ({"budgets": {"macs": (0.2, 0.8)}}, r"trained under budgets of macs:0.2..0.8, not of weights"),
        ({"budgets": {}}, "trained under budgets of nothing, not of weights"),
        ({"prior": "uniform"}, "does not correct the sensitivity plan .*prior 'uniform'.*autoprune train"),
        ({"curves": False}, "does not correct the sensitivity plan by its curves"),
    ):
        save_policy(load_policy(modest), tmp_path / "other", training=replace(TRAINING, **changes))
        with pytest.raises(ValueError, match=message):
            carried.search(found, rng=rng, policy=str(tmp_path / "other"), candidates=3)
    assert found.objective.spent == 0, "before anything is paid for"


def agent_of(name: str) -> Any:
    """The agent that conf/agent/NAME.yaml configures."""
    return instantiate(yaml.safe_load((conf_dir() / "agent" / f"{name}.yaml").read_text())["agent"], _convert_="all")


def learner(policy: Path | None) -> Any:
    source, agent = None if policy is None else str(policy), agent_of("transferable")
    search = partial(few_shot.search, policy=source, agent=agent, policy_evaluations=1)
    return lambda found, seed=0: search(found, rng=np.random.default_rng(seed))


@pytest.mark.slow
def test_learning_goes_on_and_finds_what_losses_that_add_up_do_not(modest: Path, tmp_path: Path) -> None:
    history: list[Any] = []
    name, found = "chain", problem("chain", tmp_path, limit=140, seen=history)
    plan = learner(modest)(found)
    first = next(outcome for phase, outcome in history if phase == "search")
    assert KNOWN[name].regret(plan) < 0.5 * KNOWN[name].regret(first.plan)
    assert len(history) == 140
    training = load_training(tmp_path / "policy")
    assert training.tasks == (*TRAINING.tasks, "toy")
    assert training.evaluations == TRAINING.evaluations + 140
    assert training.budgets == TRAINING.budgets


@pytest.mark.slow
def test_a_policy_that_misleads_is_forgotten(wild: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No plan is better than the sensitivity plan where losses add up; the run says so, and learns as from nothing."""
    logged: dict[str, float] = {}
    with caplog.at_level(logging.WARNING):
        learner(wild)(problem("knapsack", tmp_path, limit=120, seen=[], logged=logged))
    assert "the policy misleads: none of the 8 plans that it proposed for toy" in caplog.text
    assert logged["transfer/misled"] == 1
    assert load_training(tmp_path / "policy").tasks == ("toy",), "nothing of the policy is in it"


@pytest.mark.slow
def test_without_a_policy_it_begins_anew(tmp_path: Path) -> None:
    histories = []
    for seed in (0, 1):  # the same is the same: test_testing.py
        histories.append([])
        learner(None)(problem("chain", tmp_path, limit=50, seen=histories[-1]), seed)
    kept = [[outcome.plan.kept for _, outcome in history] for history in histories]
    assert kept[0] != kept[1]
    assert load_training(tmp_path / "policy").seeds == (0,)


def test_it_needs_a_network_that_can_be_carried(tmp_path: Path) -> None:
    agent = agent_of("critic_guided")
    with pytest.raises(ValueError, match=r"agent\.agent\.network=transferable"):
        few_shot.search(
            problem("chain", tmp_path, limit=90, seen=[]),
            rng=np.random.default_rng(0),
            policy=None,
            agent=agent,
            policy_evaluations=1,
        )


def evaluations_to(regret: float, policy: Path | None, folder: Path) -> int:
    """After how many evaluations, curves not counted, a model-based search has met a plan that is as good."""
    history: list[Any] = []
    given = problem("separable", folder, limit=90, seen=history)
    options: dict[str, Any] = {"imagination__updates": 1, "prior": "uniform", "agent__experience__episodes": 16}
    configured("model_based", policy=None if policy is None else str(policy), **options)(
        given, rng=np.random.default_rng(0)
    )
    plans = [outcome.plan for phase, outcome in history if phase != "curves" and outcome.feasible]
    return next(n for n, plan in enumerate(plans, start=1) if KNOWN["separable"].regret(plan) <= regret)


@pytest.mark.slow  # what a model makes of a prior that is right or wrong: test_model_based.py
def test_a_model_begins_with_what_carried_critics_say(modest: Path, wild: Path, tmp_path: Path) -> None:
    carried, nothing, control = (evaluations_to(0.01, policy, tmp_path) for policy in (modest, None, wild))
    assert carried < min(nothing, control), "losses do add up in this problem, as its critics say"


@pytest.mark.parametrize(
    ("budgets", "limit", "message"),
    [(["weights:0.4"], 90, r"policy=.*agent.budgets"), ([], 20, "the sensitivity plan needs 27 evaluations")],
)
def test_a_policy_that_a_model_cannot_begin_with_is_an_error(
    budgets: list[str], limit: int, message: str, modest: Path, tmp_path: Path
) -> None:
    given = under_budgets(problem("separable", tmp_path, limit=limit, seen=[]))
    with pytest.raises(ValueError, match=message):
        configured("model_based", policy=str(modest), budgets=budgets)(given, rng=np.random.default_rng(0))
    assert given.objective.spent == 0
