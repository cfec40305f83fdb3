"""Many networks and budgets in one environment: each episode is a whole plan for one of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from autoprune.env.episodes import HIGHEST, LOWEST, Array, Infos, Observation, PlanVectorEnv, Transition, constant
from autoprune.env.transfer_features import ROW_FEATURES
from autoprune.env.transfer_task import TransferTask


class TransferVectorEnv(PlanVectorEnv):
    """One-step episodes; those of a batch are of one task, drawn evenly, so that its plans are judged together.

    Observations and actions are TransferTask's. `setting` in infos is the task's index.

    Args:
        tasks: Networks under budgets.
        groups: Observations and actions are padded to so many; None for those of the largest network.
        options: num_envs, autoreset_mode and render_mode of PlanVectorEnv.
    """

    def __init__(self, tasks: Sequence[TransferTask], *, groups: int | None = None, **options: Any) -> None:
        if not tasks:
            raise ValueError("there is nothing to learn from: give at least one task")
        largest = max(len(task.rows) for task in tasks)
        self.groups = largest if groups is None else groups
        if self.groups < largest:
            raise ValueError(f"the largest network has {largest} groups, which do not fit {self.groups}")
        super().__init__(
            structure=tasks[0].structure,
            projector=tasks[0].projector,
            evaluate=tasks[0].evaluate,
            observation_space=Box(LOWEST, HIGHEST, (self.groups * (len(ROW_FEATURES) + self.groups),), np.float32),
            action_space=Box(-1, 1, (self.groups,), np.float32),
            feature_names=_names(self.groups),
            **options,
        )
        self.tasks, self.spent = tasks, 0
        self._observations = [task.observation(groups=self.groups) for task in tasks]
        self._waiting: list[int] = []
        self._index = 0

    def reset(self, *, seed: int | None = None, options: Infos | None = None) -> tuple[Observation, Infos]:
        self._waiting = []
        return super().reset(seed=seed, options=options)

    def _begin(self) -> Observation:
        """All tasks come in turn, each round in another order."""
        if not self._waiting:
            self._waiting = self.np_random.permutation(len(self.tasks)).tolist()
        self._index = self._waiting.pop()
        task = self.tasks[self._index]
        self.structure, self.projector, self.evaluate = task.structure, task.projector, task.evaluate
        return np.tile(self._observations[self._index], (self.num_envs, 1))

    def _advance(self, actions: Array) -> Transition:
        index, task = self._index, self.tasks[self._index]
        kept = task.project(actions.astype(np.float32))
        outcomes, infos = self._judged(kept)
        self.spent += self.num_envs
        return Transition(
            np.tile(self._observations[index], (self.num_envs, 1)),
            np.array([task.reward(outcome) for outcome in outcomes]),
            True,
            task.action_of(kept, groups=self.groups),
            {"setting": constant(index, self.num_envs), **infos},
        )


def _names(groups: int) -> list[str]:
    return [
        f"{group}:{name}" for group in range(groups) for name in (*ROW_FEATURES, *(f"edge_{i}" for i in range(groups)))
    ]
