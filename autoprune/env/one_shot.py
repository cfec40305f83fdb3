"""The whole plan as one action: either the groups' densities, or a correction to a prior plan."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.env.features import HIGHEST, LOWEST
from autoprune.env.layerwise import LEAST_DENSITY
from autoprune.evaluation.outcome import Outcome
from autoprune.plan import PruningPlan
from autoprune.structure.groups import IntArray, Structure

Evaluate = Callable[[Sequence[PruningPlan]], list[Outcome]]
Observation = NDArray[np.float32]
Action = NDArray[np.float32]


class OneShotEnv(gymnasium.Env[Observation, Action]):
    """One step per episode. Action [groups] in [−1, 1].

    Without a prior, an action is the groups' densities, −1 = almost nothing kept, 1 = all. With a prior plan it is a
    correction: the density wished for is the prior's times exp(reach · action), so that 0 is the prior. Either way the
    wish is scaled until it fills the budget. Observation: GROUP_FEATURES of every group and the budget over dense.
    info: `executed_action`, `plan`, `outcome`.
    """

    def __init__(
        self,
        structure: Structure,
        *,
        projector: Projector,
        evaluate: Evaluate,
        features: FloatArray,
        prior: IntArray | None = None,
        reach: float = 1.5,
    ) -> None:
        if reach <= 0:
            raise ValueError(f"reach must be positive, got {reach}")
        self.structure, self.projector = structure, projector
        self._evaluate, self._reach = evaluate, reach
        self._prior = None if prior is None else np.asarray(prior, np.float64) / structure.units
        self._observation = np.append(features.ravel(), projector.budget.relative).astype(np.float32)
        self.observation_space = gymnasium.spaces.Box(LOWEST, HIGHEST, self._observation.shape, np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (len(structure.groups),), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        return self._observation.copy(), {}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        kept = self.projector.project(self._density(np.asarray(action, np.float64)))
        plan = self.structure.plan(kept)
        outcome = self._evaluate([plan])[0]
        info = {"plan": plan, "outcome": outcome, "executed_action": self._action(kept / self.structure.units)}
        return self._observation.copy(), outcome.reward, True, False, info

    def _density(self, action: FloatArray) -> FloatArray:
        action = np.clip(action, -1, 1)
        if self._prior is None:
            return LEAST_DENSITY + (1 - LEAST_DENSITY) * (action + 1) / 2
        return np.minimum(1.0, self._prior * np.exp(self._reach * action))

    def _action(self, density: FloatArray) -> Action:
        """What of a density can be said as an action: the inverse of `_density` within [−1, 1]."""
        if self._prior is None:
            action = 2 * (density - LEAST_DENSITY) / (1 - LEAST_DENSITY) - 1
        else:
            action = np.log(density / self._prior) / self._reach
        return np.clip(action, -1, 1).astype(np.float32)
