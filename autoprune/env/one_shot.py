"""The whole plan as one action: either the groups' densities, or a correction to a prior plan."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.env.action_scale import Action, PlanScale
from autoprune.env.episodes import HIGHEST, LOWEST, Array, Evaluate, Observation, PlanVectorEnv, Transition
from autoprune.problem.group_features import GROUP_FEATURES
from autoprune.structure.groups import IntArray, Structure


class OneShotVectorEnv(PlanVectorEnv):
    """One step per episode, whose action [groups] in [−1, 1] is a whole plan.

    Without a prior, an action is the groups' densities, −1 for almost nothing and 1 for all. With one it is a
    correction: the target density is the prior's times exp(max_log_correction · action), so that 0 is the prior. Either
    way the target is scaled until it fills the budget. Observations are every group's features and the budget over
    dense.

    Args:
        structure: Groups to decide on.
        projector: Holds the budget.
        evaluate: Judges a batch of plans.
        features: What is observed of each group [groups, any].
        prior: Units of the plan that actions correct [groups], or None.
        max_log_correction: What an action of 1 adds to the prior's log-density.
        options: num_envs, autoreset_mode and render_mode of PlanVectorEnv.
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
        **options: Any,
    ) -> None:
        self._observation = one_shot_observation(features, projector)
        super().__init__(
            structure=structure,
            projector=projector,
            evaluate=evaluate,
            observation_space=Box(LOWEST, HIGHEST, self._observation.shape, np.float32),
            action_space=Box(-1, 1, (len(structure.groups),), np.float32),
            feature_names=names_of(structure, GROUP_FEATURES[: features.shape[1]]),
            **options,
        )
        self._scale = PlanScale.around(prior, structure, max_log_correction)

    def _begin(self) -> Observation:
        return np.tile(self._observation, (self.num_envs, 1))

    def _advance(self, actions: Array) -> Transition:
        kept = self.projector.project(self._scale.density(actions))
        outcomes, infos = self._judged(kept)
        rewards = np.array([outcome.reward for outcome in outcomes], np.float64)
        return Transition(self._begin(), rewards, True, self.action_of(kept), infos)

    def executable(self, actions: Action) -> Action:
        """Returns what would be executed of actions [n, groups]."""
        return self.action_of(self.projector.project(self._scale.density(np.asarray(actions, np.float64))))

    def plans_of(self, executed: Action) -> IntArray:
        """Returns the plans that were executed for actions [n, groups], on the action's scale."""
        return self._scale.plans_of(executed, self.projector)

    def action_of(self, kept: IntArray) -> Action:
        """Returns the action that comes nearest to saying kept [..., groups], a plan inside the budget or not."""
        return self._scale.action(np.asarray(kept) / self.structure.units)


def one_shot_observation(features: FloatArray, projector: Projector) -> Observation:
    """Returns all groups' features one after the other, and the budget over dense.

    Args:
        features: What is observed of each group [groups, features].
        projector: Moves plans into the budget.
    """
    return np.append(features.ravel(), projector.budget.relative).astype(np.float32)


def names_of(structure: Structure, features: Sequence[str]) -> list[str]:
    """Returns `group:feature` for every group and feature, and `budget`.

    Args:
        structure: The network's groups and layers.
        features: The names of what is observed of one group.
    """
    return [*(f"{group}:{feature}" for group in structure.names for feature in features), "budget"]
