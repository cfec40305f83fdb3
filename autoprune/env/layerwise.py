"""The objective revealed one group at a time: each step says how much of one group to keep (AMC, arXiv 1802.03494)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from autoprune.cost.allocation import allocator_of
from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.env.action_scale import PlanScale
from autoprune.env.episodes import (
    HIGHEST,
    LOWEST,
    UNDECIDED,
    Array,
    Evaluate,
    Observation,
    PlanVectorEnv,
    Transition,
    constant,
)
from autoprune.problem.group_features import GROUP_FEATURES
from autoprune.structure.groups import IntArray, Structure

STATE_FEATURES = (
    "budget",  # limit over dense cost
    "left",  # budget less `floor`
    "floor",  # cost over dense if this and later groups are cut to their floor, earlier ones as decided
    "ceiling",  # cost over dense if this and later groups are kept whole
    "least_density",  # of this group, that still uses the budget up
    "most_density",  # of this group, that still meets the budget
    "last_action",  # density executed in the step before, 1 at the start
)

FEATURE_NAMES = GROUP_FEATURES + STATE_FEATURES
CHANGING = len(STATE_FEATURES) - 1  # all but the budget, which is the same throughout


class LayerwiseVectorEnv(PlanVectorEnv):
    """One step per group, in the network's order; the reward comes with the last one.

    An action in [−1, 1] is the group's density, −1 for almost nothing and 1 for all, or a correction to that of
    `prior`. It is moved into the interval from which the budget can still be met and used up, and onto an allowed
    level. With `levels`, an action is one of so many evenly spaced densities. Observations are GROUP_FEATURES and
    STATE_FEATURES of the group to decide; the last one is still of the last group.

    Args:
        structure: Groups to decide on.
        projector: Holds the budget.
        evaluate: Judges a batch of plans.
        features: What is observed of each group [groups, len(GROUP_FEATURES)].
        prior: Units of the plan that actions correct [groups], or None.
        max_log_correction: What an action of 1 adds to the prior's log-density.
        lost: For each group, the loss when it keeps so many units [units + 1]. Every step then costs that at once, and
            the last one gives it back, so that the return stays what it was (Ng, Harada & Russell, ICML 1999).
        levels: Densities of a discrete action space, or None for a box.
        options: num_envs, autoreset_mode and render_mode of PlanVectorEnv.
    """

    feature_names = FEATURE_NAMES

    def __init__(  # noqa: PLR0913 - keyword-only: what an environment is of
        self,
        structure: Structure,
        *,
        projector: Projector,
        evaluate: Evaluate,
        features: FloatArray,
        prior: IntArray | FloatArray | None = None,
        max_log_correction: float = 1.5,
        lost: Sequence[FloatArray] | None = None,
        levels: int | None = None,
        **options: Any,
    ) -> None:
        if levels is not None and levels < 2:
            raise ValueError(f"at least two levels are needed to choose from, got {levels}")
        super().__init__(
            structure=structure,
            projector=projector,
            evaluate=evaluate,
            observation_space=Box(LOWEST, HIGHEST, (len(FEATURE_NAMES),), np.float32),
            action_space=Box(-1, 1, (1,), np.float32) if levels is None else Discrete(levels),
            feature_names=FEATURE_NAMES,
            **options,
        )
        self._lost = lost
        self._scale = PlanScale.around(prior, structure, max_log_correction)
        self._level_actions = None if levels is None else np.linspace(-1, 1, levels, dtype=np.float32)
        self._names = [constant(name, self.num_envs) for name in structure.names]
        self._units = structure.units.astype(np.float64).tolist()
        self._budget, self._dense = projector.budget.relative, projector.budget.dense
        self._rows = list(_fixed_rows(features, self._budget))
        self._executed = [self._on_action_scale(actions) for actions in self._scale.executable(structure)]
        self._allocator = allocator_of(projector, episodes=self.num_envs)
        self._state = np.empty((CHANGING, self.num_envs))  # STATE_FEATURES without the budget
        self._begin()

    def _begin(self) -> Observation:
        self._allocator.restart()
        self._state[-1] = 1.0
        return self._observe()

    def _advance(self, actions: Array) -> Transition:
        group = self._allocator.group
        values = actions[:, 0] if self._level_actions is None else self._level_actions[actions].astype(np.float64)
        kept = self._allocator.decide(self._scale.density(values, group) * self._units[group])
        self.outcomes, self.kept = (), np.array(self._allocator.kept)
        self.kept[:, group + 1 :] = UNDECIDED
        self._state[-1] = kept / self._units[group]
        executed, names = self._executed[group].take(kept, axis=0), {"group": self._names[group]}
        if group + 1 < len(self._units):
            lost = np.zeros(self.num_envs) if self._lost is None else -self._lost[group][kept]
            return Transition(self._observe(), lost, False, executed, names)
        final = self._observation(group)
        outcomes, infos = self._judged(self.kept)
        rewards = np.array([outcome.reward for outcome in outcomes]) + given_back(self._lost, self.kept)
        return Transition(final, rewards, True, executed, names | infos)

    def _on_action_scale(self, actions: NDArray[np.float32]) -> Array:
        """What says each number of units [units + 1, 1]; of levels, the nearest ones [units + 1]."""
        if self._level_actions is None:
            return actions[:, None]
        return np.asarray(np.abs(self._level_actions - actions[:, None]).argmin(axis=1))

    def _observe(self) -> Observation:
        allocator, state = self._allocator, self._state
        np.divide(allocator.costs, self._dense, out=state[1:3])
        np.subtract(self._budget, state[1], out=state[0])
        np.divide(allocator.interval, self._units[allocator.group], out=state[3:5])
        return self._observation(allocator.group)

    def _observation(self, group: int) -> Observation:
        observation = np.empty((self.num_envs, len(FEATURE_NAMES)), np.float32)
        observation[:] = self._rows[group]
        observation[:, -CHANGING:] = self._state.T
        return observation


def _fixed_rows(features: FloatArray, budget: float) -> Observation:
    """[groups, features and state]: what is the same in every episode, zeros elsewhere. budget: over dense."""
    state = np.zeros((len(features), 1 + CHANGING))
    state[:, 0] = budget
    return np.concatenate([features, state], axis=1).astype(np.float32)


def given_back(lost: Sequence[FloatArray] | None, kept: IntArray) -> NDArray[np.float64]:
    """Returns what steps before the last have cost for shaping's sake: kept [..., groups] → [...].

    Args:
        lost: Group → the loss at each number of units; None where that is not paid at once.
        kept: Units that each group keeps [..., groups].
    """
    back = np.zeros(kept.shape[:-1])
    for group, table in enumerate([] if lost is None else lost[:-1]):
        back = back + table[kept[..., group]]
    return back
