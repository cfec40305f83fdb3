"""The whole plan as one action: either the groups' densities, or a correction to a prior plan."""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.env.features import HIGHEST, LOWEST
from autoprune.env.layerwise import Action, Evaluate, Observation, actions_of, densities_of
from autoprune.structure.groups import IntArray, Structure


class OneShotEnv(gymnasium.Env[Observation, Action]):
    """One step per episode. Action [groups] in [−1, 1].

    Without a prior, an action is the groups' densities, −1 = almost nothing kept, 1 = all. With a prior plan it is a
    correction: the density wished for is the prior's times exp(reach · action), so that 0 is the prior. Either way the
    wish is scaled until it fills the budget. Observation: GROUP_FEATURES of every group and the budget over dense.
    info: `executed_action`, `plan`, `outcome`. OneShotVectorEnv is the same for many episodes at once.
    """

    def __init__(
        self,
        structure: Structure,
        *,
        projector: Projector,
        evaluate: Evaluate,
        features: FloatArray,
        prior: IntArray | FloatArray | None = None,
        reach: float = 1.5,
    ) -> None:
        self.structure, self.projector = structure, projector
        self._evaluate = evaluate
        self._scale = PlanScale(None if prior is None else prior / structure.units, reach)
        self._observation = one_shot_observation(features, projector)
        self.observation_space = gymnasium.spaces.Box(LOWEST, HIGHEST, self._observation.shape, np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (len(structure.groups),), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        return self._observation.copy(), {}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        kept = self.projector.project(self._scale.density(np.asarray(action, np.float64)))
        plan = self.structure.plan(kept)
        outcome = self._evaluate([plan])[0]
        info = {"plan": plan, "outcome": outcome, "executed_action": self._scale.action(kept / self.structure.units)}
        return self._observation.copy(), outcome.reward, True, False, info


@dataclass(frozen=True, slots=True, eq=False)
class PlanScale:
    """What actions [..., groups] mean: densities, or corrections to `prior`, the densities of a plan [groups]."""

    prior: FloatArray | None
    reach: float

    def __post_init__(self) -> None:
        if self.reach <= 0:
            raise ValueError(f"reach must be positive, got {self.reach}")

    def density(self, action: FloatArray) -> FloatArray:
        if self.prior is None:
            return densities_of(action)
        return np.minimum(1.0, self.prior * np.exp(self.reach * np.clip(action, -1, 1)))

    def action(self, density: FloatArray) -> Action:
        """What of a density can be said as an action: the inverse of `density` within [−1, 1]."""
        if self.prior is None:
            return actions_of(density).astype(np.float32)
        return np.clip(np.log(density / self.prior) / self.reach, -1, 1).astype(np.float32)


def one_shot_observation(features: FloatArray, projector: Projector) -> Observation:
    """All groups' features one after the other, and the budget over dense."""
    return np.append(features.ravel(), projector.budget.relative).astype(np.float32)
