"""Transitions for replay buffers."""

from typing import Any

import gymnasium
import numpy as np

from autoprune.agent.replay import ExecutedActionReplayBuffer

OBSERVATION = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
BOX = gymnasium.spaces.Box(-1, 1, (1,), np.float32)


def add(
    buffer: ExecutedActionReplayBuffer, *, mark: float, executed: Any, reward: float, done: bool, asked: float = 0.5
) -> None:
    """One transition whose observation and next observation are `mark` and `mark + 1`."""
    observation = np.full((1, 2), mark, np.float32)
    dones, rewards = np.array([done]), np.array([reward], np.float32)
    infos = [{"executed_action": np.asarray(executed, np.float32)}]
    buffer.add(observation, observation + 1, np.full((1, 1), asked, np.float32), rewards, dones, infos)
