"""The agent's own numbers arrive as plain floats, and nothing else does."""

from collections.abc import Mapping

import numpy as np
import pytest
from stable_baselines3.common.logger import Figure

from autoprune.agent.learn import learn
from autoprune.agent.metrics import logger
from tests.agent.environments import environment_for, small_agent

LOSSES = {
    "A2C": {"train/value_loss", "train/policy_loss"},
    "DDPG": {"train/actor_loss", "train/critic_loss", "rollout/noise_sigma"},
    "DQN": {"train/loss", "rollout/exploration_rate"},
    "PPO": {"train/value_loss", "train/policy_gradient_loss", "train/approx_kl"},
    "SAC": {"train/actor_loss", "train/critic_loss", "train/ent_coef"},
}


def test_only_the_agents_numbers_are_forwarded() -> None:
    received: list[tuple[dict[str, float], int]] = []
    log = logger(lambda metrics, step: received.append((dict(metrics), step)))
    log.record("train/actor_loss", np.float32(0.5))
    log.record("rollout/ep_rew_mean", 2)
    log.record("time/fps", 100)
    log.record("train/picture", Figure(None, close=False))  # type: ignore[arg-type]
    log.dump(7)
    log.record("time/fps", 100)
    log.dump(8)
    assert received == [({"train/actor_loss": 0.5, "rollout/ep_rew_mean": 2.0}, 7)]


@pytest.mark.parametrize("algorithm", sorted(LOSSES))
def test_losses_of_a_learning_agent_are_forwarded(algorithm: str) -> None:
    seen: dict[str, float] = {}
    steps: list[int] = []

    def on_metrics(metrics: Mapping[str, float], step: int) -> None:
        seen.update(metrics)
        steps.append(step)

    env = environment_for(algorithm, steps=2)
    learn(small_agent(algorithm, updates=2), env=env, episode_steps=2, episodes=10, seed=0, on_metrics=on_metrics)
    assert LOSSES[algorithm] | {"rollout/ep_rew_mean"} <= set(seen)
    assert all(type(value) is float for value in seen.values())
    assert steps == sorted(steps)
