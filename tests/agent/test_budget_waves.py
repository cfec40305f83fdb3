"""A policy that reads the budget's waves tells near budgets apart, and is saved and read back with them."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from autoprune.agent.bundle import load_policy, save_policy
from autoprune.agent.sb3_model import build
from autoprune.agent.self_imitation import imitate
from autoprune.agent.trained_policy import policy_of
from tests.agent.environments import small_agent
from tests.agent.policies import TRAINING

BUDGETS = np.array([[0.2], [0.3], [0.4], [0.5], [0.65]], np.float32)
WANTED = np.array([[0.1], [0.1], [0.4], [-0.1], [0.1]], np.float32)  # one is not between its neighbours


class OneBudget(gymnasium.Env[Any, Any]):
    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)


def learned_by_heart(waves: int) -> tuple[Any, float]:
    """The policy after as many steps as a search has, and its largest error on BUDGETS."""
    agent = small_agent("PPO", activation="tanh", hidden=(64, 64), budget_waves=waves)
    agent.hyperparameters["learning_rate"] = 0.003  # type: ignore[index]
    policy = policy_of("PPO", build(agent, env=OneBudget(), episode_steps=1, episodes=1, seed=0))
    imitate(policy, BUDGETS, WANTED, steps=100)  # as after each batch of a search
    with torch.no_grad():
        network: Any = policy.network
        mean = network.get_distribution(torch.as_tensor(BUDGETS)).distribution.mean.numpy()
    return policy, float(np.abs(mean - WANTED).max())


def test_near_budgets_are_told_apart_with_waves_and_not_without() -> None:
    assert learned_by_heart(4)[1] < 0.03
    assert learned_by_heart(0)[1] > 0.1


def test_a_saved_policy_reads_the_same_waves(tmp_path: Path) -> None:
    policy, _ = learned_by_heart(3)
    save_policy(policy, tmp_path, training=TRAINING)
    again = load_policy(tmp_path)
    assert again.architecture["options"]["budget_waves"] == 3
    for budget in np.linspace(0, 1, 7, dtype=np.float32):
        assert again.act(budget[None]) == pytest.approx(policy.act(budget[None]), abs=1e-6)


def test_waves_are_for_networks_of_the_whole_plan() -> None:
    with pytest.raises(ValueError, match=r"budget_waves.*network=whole"):
        small_agent("PPO", network="shared", budget_waves=2)
