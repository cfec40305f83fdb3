"""A layer-wise environment for agents that choose among levels."""

from typing import Any

import gymnasium
import numpy as np

from autoprune.env.action_scale import Action
from autoprune.env.layerwise import LayerwiseEnv, Observation


class DiscreteLevels(gymnasium.Wrapper[Observation, Any, Observation, Action]):
    """Action i of `levels` asks for evenly spaced densities, the last one for all units.

    `executed_action` in info is the level nearest to what was executed.
    """

    def __init__(self, env: LayerwiseEnv, *, levels: int) -> None:
        super().__init__(env)
        if levels < 2:
            raise ValueError(f"at least two levels are needed to choose from, got {levels}")
        self.actions = np.linspace(-1, 1, levels, dtype=np.float32)
        self.action_space = gymnasium.spaces.Discrete(levels)

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(self.actions[int(action) : int(action) + 1])
        nearest = np.abs(self.actions - info["executed_action"]).argmin()
        return observation, float(reward), terminated, truncated, info | {"executed_action": int(nearest)}
