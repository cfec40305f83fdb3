"""The whole plan as one action: either the groups' densities, or a correction to a prior plan."""

from typing import Any

import gymnasium
import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.env.action_scale import Action, PlanScale
from autoprune.env.features import HIGHEST, LOWEST
from autoprune.env.layerwise import Evaluate, Observation
from autoprune.structure.groups import IntArray, Structure


class OneShotEnv(gymnasium.Env[Observation, Action]):
    """One step per episode. Action [groups] in [−1, 1].

    Without a prior, an action is the groups' densities, −1 = almost nothing kept, 1 = all. With a prior plan it is a
    correction: the density wished for is the prior's times exp(max_log_correction · action), so that 0 is the prior.
    Either way the wish is scaled until it fills the budget. Observation: GROUP_FEATURES of every group and the budget
    over dense. info: `executed_action`, `plan`, `outcome`. OneShotVectorEnv is the same for many episodes at once.
    """

    def __init__(
        self,
        structure: Structure,
        *,
        projector: Projector,
        evaluate: Evaluate,
        features: FloatArray,
        prior: IntArray | FloatArray | None = None,
        max_log_correction: float = 1.5,
    ) -> None:
        self.structure, self.projector = structure, projector
        self._evaluate = evaluate
        self._scale = PlanScale.around(prior, structure, max_log_correction)
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

    def executable(self, actions: Action) -> Action:
        """What would be executed of actions [many, groups]."""
        kept = self.projector.project(self._scale.density(np.asarray(actions, np.float64)))
        return self._scale.action(kept / self.structure.units)

    def plans_of(self, executed: Action) -> IntArray:
        """The plans that were executed for actions [many, groups], on the action's scale."""
        units = self._scale.density(np.asarray(executed, np.float64)) * self.structure.units
        groups = range(len(self.structure.groups))
        return np.stack([self.projector.snap(units[:, group], group) for group in groups], axis=1)

    def action_of(self, kept: IntArray) -> Action:
        """The action that comes nearest to saying kept [..., groups], a plan inside the budget or not."""
        return self._scale.action(np.asarray(kept) / self.structure.units)


def one_shot_observation(features: FloatArray, projector: Projector) -> Observation:
    """All groups' features one after the other, and the budget over dense."""
    return np.append(features.ravel(), projector.budget.relative).astype(np.float32)
