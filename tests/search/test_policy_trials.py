"""A policy is judged by the plan that it makes itself, and what is saved makes its best one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoprune.agent.agent_spec import AgentSpec, Replay, Rollout
from autoprune.agent.bundle import load_policy, load_training
from autoprune.agent.sb3_model import build
from autoprune.agent.trained_policy import act_zero, policy_of
from autoprune.agent.vec_env import vectorized
from autoprune.env.env_spec import EnvFactory, EnvSpec
from autoprune.evaluation.metered import POLICY
from autoprune.search.policy_trials import PolicyTrials, affordable, own_evaluations, play
from tests.sampling import covering
from tests.search.known import KNOWN
from tests.search.learners import learnable
from tests.search.searches import search, short


@pytest.mark.parametrize(
    "name",
    covering(["critic_guided", "dqn", "edit_ppo", "ppo", "recurrent_ppo", "td3"], ("dqn", "recurrent_ppo", "td3")),
)
def test_its_own_plan_is_evaluated_and_the_best_policy_is_saved(name: str, tmp_path: Path) -> None:
    history: list[Any] = []
    problem = learnable(KNOWN["chain"], tmp_path, limit=70, seen_by=history)
    search(name, **short(name))(problem, rng=np.random.default_rng(0))
    own = [outcome for phase, outcome in history if phase == POLICY]
    assert history[-1][1] is own[-1], "the last evaluation is reserved for it"
    assert 2 <= len(own) <= 5
    if name not in ("dqn", "edit_ppo"):  # without a prior, and where an episode's first trial is left out
        assert own[0].plan == history[0][1].plan, "before it learns it makes the prior's plan"
    assert len(history) == problem.objective.spent == 70, "and they are charged"
    training, policy = load_training(tmp_path / "policy"), load_policy(tmp_path / "policy")
    assert training.environment is not None
    assert tuple(training.groups) == problem.structure.names
    again = learnable(KNOWN["chain"], tmp_path, limit=99)
    spec = EnvSpec(**training.environment)
    factory = EnvFactory(again, spec, own_evaluations(again, projected=True), spec.prior_of(again))
    assert play(factory.one(), policy).plan == max(reversed(own), key=lambda outcome: outcome.reward).plan


def test_a_policy_that_exceeds_the_budget_is_moved_into_it(tmp_path: Path) -> None:
    history: list[Any] = []
    problem = learnable(KNOWN["chain"], tmp_path, limit=40, seen_by=history)
    search("ppo", constraint="penalty", prior="uniform")(problem, rng=np.random.default_rng(0))
    assert all(outcome.feasible for phase, outcome in history if phase == POLICY)
    assert not all(outcome.feasible for _, outcome in history), "the control: its own samples exceed it"


@pytest.mark.parametrize("name", ["PPO", "TD3", "SAC"])
def test_a_policy_that_only_gets_worse_is_not_handed_out(name: str, tmp_path: Path) -> None:
    problem, spec = learnable(KNOWN["separable"], tmp_path, limit=40), EnvSpec(mode="one_shot", prior="closed_form")
    prior = spec.prior_of(problem)
    assert prior is not None
    factory = EnvFactory(problem, spec, own_evaluations(problem, projected=True), prior)
    replay = Rollout(episodes=4) if name == "PPO" else Replay(episodes=9, warm_up_episodes=0, parallel=4)
    agent = AgentSpec(name, experience=replay, hidden=(8,), activation="tanh")
    policy = policy_of(name, build(agent, env=vectorized(factory.batch(4)), episode_steps=1, episodes=9, seed=0))
    act_zero(policy)
    trials = PolicyTrials(problem, factory.one(), price=1, trials=2)
    trials.begin(policy)
    network: Any = policy.network
    bias = (
        network.action_net.bias if name == "PPO" else network.actor.mu.get_submodule("2" if name == "TD3" else "").bias
    )
    bias.data[:] = torch.tensor([-1.0, 1.0, -1.0, 1.0, -1.0])  # g0 is worth most
    assert play(factory.one(), policy).reward < prior.outcome.reward, "the control: what it has learned is worse"
    trials.finish(policy)
    assert play(factory.one(), policy).plan == prior.outcome.plan


def test_no_more_than_one_in_ten_evaluations_is_the_policys() -> None:
    assert [affordable(5, evaluations, price=1) for evaluations in (5, 19, 20, 49, 300)] == [2, 2, 2, 4, 5]
    assert affordable(1, 300, price=1) == 1
    assert affordable(5, 300, price=20) == 1
    with pytest.raises(ValueError, match=r"agent.policy_evaluations must be at least 1, got 0"):
        affordable(0, 300, price=1)
