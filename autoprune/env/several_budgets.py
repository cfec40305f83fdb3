"""Episodes under several budgets of one network, side by side in one vector environment."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from autoprune.env.env_spec import EnvFactory
from autoprune.env.episodes import Array, Infos, Observation, Step


class SeveralBudgetsVectorEnv(VectorEnv[Observation, Array, Array]):
    """One environment for each budget, whose episodes begin and end together; the budget is in what is observed.

    Args:
        factories: Of the same network and specification, one for each budget.
        num_envs: Episodes in all, at least one for each budget; they are divided evenly.
    """

    def __init__(self, factories: Sequence[EnvFactory], *, num_envs: int) -> None:
        if num_envs < len(factories) or not factories:
            raise ValueError(f"{len(factories)} budgets need an episode each, got num_envs={num_envs}")
        sizes = [len(part) for part in np.array_split(np.arange(num_envs), len(factories))]
        self._parts = [factory.batch(size) for factory, size in zip(factories, sizes, strict=True)]
        self._ends = np.cumsum(sizes)[:-1]
        first = self._parts[0]
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space, self.single_action_space = (
            first.single_observation_space,
            first.single_action_space,
        )
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: Infos | None = None) -> tuple[Observation, Infos]:
        super().reset(seed=seed)
        return np.concatenate([part.reset(seed=seed, options=options)[0] for part in self._parts]), {}

    def step(self, actions: Array) -> Step:
        answers = [part.step(of) for part, of in zip(self._parts, np.split(actions, self._ends), strict=True)]
        observations, rewards, terminated, truncated = (
            np.concatenate([answer[index] for answer in answers]) for index in range(4)
        )
        return observations, rewards, terminated, truncated, _joined([answer[4] for answer in answers])


def _joined(infos: Sequence[Infos]) -> Infos:
    """What all say, one after the other: arrays, and tables of them."""
    joined: dict[str, Any] = {}
    for key, value in infos[0].items():
        values = [info[key] for info in infos]
        joined[key] = _joined(values) if isinstance(value, dict) else np.concatenate(values)
    return joined
