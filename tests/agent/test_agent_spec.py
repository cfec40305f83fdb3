"""An agent's configuration says what it means, or is refused with the reason."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hydra.utils import instantiate
from omegaconf import OmegaConf

from autoprune.agent.agent_spec import ALGORITHMS, AgentSpec, Replay, Rollout
from autoprune.agent.learn import check_length
from autoprune.agent.sb3_model import build
from autoprune.agent.vec_env import vectorized
from tests.agent.critic_guided import PROPOSALS
from tests.agent.environments import GAUSSIAN_NOISE, KnownAnswer, KnownLevel, small_agent

CONF = Path(__file__).parents[2] / "conf" / "agent"
AGENTS = sorted(path.stem for path in CONF.glob("*.yaml") if "search.rl.search" in path.read_text())


def spec_of(name: str) -> Any:
    conf: Any = OmegaConf.load(CONF / f"{name}.yaml")
    return instantiate(conf.agent, _convert_="all")


def test_every_algorithm_has_a_configuration() -> None:
    assert {spec_of(name).algorithm for name in AGENTS} == set(ALGORITHMS)


@pytest.mark.parametrize("name", AGENTS)
def test_a_configured_agent_can_be_built(name: str) -> None:
    spec = spec_of(name)
    steps = 1 if spec.network != "whole" or spec.parallel_episodes > 1 else 3
    kind = KnownLevel if spec.algorithm == "DQN" else KnownAnswer
    makers = [lambda: kind(np.zeros(6 // (4 - steps)), steps=steps) for _ in range(spec.parallel_episodes)]
    env = vectorized(SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP))
    model: Any = build(spec, env=env, episode_steps=steps, episodes=300, seed=0)
    assert spec.hyperparameters["gamma"] == model.gamma == 1.0
    assert model.n_envs == spec.parallel_episodes


def test_an_unknown_algorithm_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"algorithm.*DDPG.*TQC.*'DDPQ'"):
        small_agent("DDPQ")


@pytest.mark.parametrize(
    ("algorithm", "changes", "message"),
    [
        ("PPO", {"noise": GAUSSIAN_NOISE}, "noise does not apply to PPO"),
        ("DQN", {"noise": GAUSSIAN_NOISE}, "noise does not apply to DQN"),
        ("TD3", {"initial_std": 0.1}, r"initial_std.*TD3"),
        ("PPO", {"actor_learning_rate": 0.1}, r"actor_learning_rate.*PPO"),
        ("PPO", {"experience": Replay(10, 0)}, "PPO learns from a Rollout, got a Replay"),
        ("SAC", {"experience": Rollout(10)}, "SAC learns from a Replay, got a Rollout"),
        ("PPO", {"hyperparameters": {"tau": 0.1}}, r"PPO.*'tau'.*clip_range"),
        ("SAC", {"hyperparameters": {"buffer_size": 9}}, "'buffer_size'.*decided by experience.episodes"),
        ("PPO", {"hyperparameters": {"seed": 9}}, "'seed'.*decided by the run's seed"),
        ("PPO", {"activation": "gelu"}, r"activation must be relu or tanh, got 'gelu'"),
        ("PPO", {"network": "alike"}, r"agent.network.*shared_bias.*'alike'"),
        ("SAC", {"network": "shared"}, r"network=shared.*SAC.*PPO"),
        ("RecurrentPPO", {"network": "shared_bias"}, r"network=shared_bias.*RecurrentPPO"),
        ("PPO", {"network": "shared", "hidden": ()}, "network=shared"),
        ("PPO", {"memory": 8}, "memory is for .*RecurrentPPO.*; got 8 with PPO"),
        ("RecurrentPPO", {"memory": None}, "which need it; got None"),
        ("DDPG", {"critics": 3}, r"DDPG.*SAC"),
        ("CrossQ", {"hyperparameters": {"tau": 0.1}}, r"CrossQ.*'tau'"),
        ("PPO", {"critic_guidance": PROPOSALS}, "chosen by critics of actions.*not to PPO"),
        ("DQN", {"critic_guidance": PROPOSALS}, "chosen by critics of actions.*not to DQN"),
        ("TD3", {"critic_guidance": PROPOSALS}, "not to TD3 with noise"),
        ("TD3", {"experience": Replay(9, 0, parallel=2)}, "noise is drawn for one episode at a time"),
    ],
)
def test_an_option_that_does_not_apply_is_refused(algorithm: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_agent(algorithm, **changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Replay(1, 0, baseline_rate=0.5), "set copy_terminal_reward: true"),
        (lambda: Replay(1, 0, n_steps=2, copy_terminal_reward=True), "neither keep_proposed nor copies"),
        (lambda: Replay(1, 0, standardised=True, copy_terminal_reward=True), "standardised or copied, not both"),
    ],
)
def test_impossible_experience_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_proposals_need_a_replay_that_holds_the_whole_search() -> None:
    agent = small_agent("SAC", experience=Replay(60, 0, parallel=2), critic_guidance=PROPOSALS)
    check_length(agent, 40, 1, seeded=14)
    with pytest.raises(ValueError, match=r"a replay of 60 episodes would forget some.*to at least 61"):
        check_length(agent, 40, 1, seeded=15)


def test_amc_is_configured_as_in_the_paper() -> None:
    spec: AgentSpec = spec_of("amc")
    assert spec.experience == Replay(100, 100, copy_terminal_reward=True, baseline_rate=0.5)
    assert list(spec.hidden) == [300, 300]
    assert spec.hyperparameters == {"learning_rate": 1e-3, "gamma": 1.0, "batch_size": 64, "tau": 0.01}
    assert spec.actor_learning_rate == 1e-4
