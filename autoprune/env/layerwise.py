"""The objective revealed one group at a time: each step says how much of one group to keep (AMC, arXiv 1802.03494)."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from autoprune.cost.allocation import allocator_of
from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.env.action_scale import Action, PlanScale
from autoprune.env.features import HIGHEST, LOWEST, STATE_FEATURES
from autoprune.evaluation.outcome import Outcome
from autoprune.plan import PruningPlan
from autoprune.problem.group_features import GROUP_FEATURES
from autoprune.structure.groups import IntArray, Structure

Evaluate = Callable[[Sequence[PruningPlan]], list[Outcome]]
Observation = NDArray[np.float32]

FEATURE_NAMES = GROUP_FEATURES + STATE_FEATURES
CHANGING = len(STATE_FEATURES) - 1  # all but the budget, which is the same throughout


class LayerwiseEnv(gymnasium.Env[Observation, Action]):
    """One step per group, in the network's order; the reward comes with the last one.

    Action [1] in [−1, 1]: the group's density, −1 = almost nothing kept, 1 = all; it is moved into the interval from
    which the budget can still be met and used up, and onto an allowed level. Observation: GROUP_FEATURES and
    STATE_FEATURES of the group to decide; the last one is still of the last group. info: `executed_action`, what became
    of the action, on the action's scale; `group`; and at the end `plan` and `outcome`. LayerwiseVectorEnv is the same
    for many episodes at once.

    prior [groups]: units; actions correct its densities by exp(max_log_correction · action) then. lost: for each group
    [units + 1], what is thought to be lost when it keeps so many; every step then costs that at once, and the last one
    gives it back, so that the return stays what it was (potential-based shaping, Ng, Harada & Russell, ICML 1999).
    """

    feature_names = FEATURE_NAMES

    def __init__(
        self,
        structure: Structure,
        *,
        projector: Projector,
        evaluate: Evaluate,
        features: FloatArray,
        prior: IntArray | FloatArray | None = None,
        max_log_correction: float = 1.5,
        lost: Sequence[FloatArray] | None = None,
    ) -> None:
        self.structure, self.projector = structure, projector
        self._evaluate, self._lost = evaluate, lost
        self._scale = PlanScale.around(prior, structure, max_log_correction)
        self.observation_space = layerwise_observations()
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self._names, self._units = structure.names, structure.units.tolist()
        self._budget, self._dense = projector.budget.relative, projector.budget.dense
        self._rows = list(observation_rows(features, self._budget))
        self._executed = [actions[:, None] for actions in self._scale.executable(structure)]
        self._walk = allocator_of(projector)
        self._last = self._observe(1.0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self._walk.restart()
        return self._observe(1.0), {}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        group = self._walk.group
        if group == len(self._names):
            raise gymnasium.error.ResetNeeded("all groups are decided: reset() begins the next episode")
        units = self._units[group]
        kept = self._walk.decide(self._scale.one_density(float(action[0]), group) * units)
        info: dict[str, Any] = {"group": self._names[group], "executed_action": self._executed[group][kept].copy()}
        if group + 1 < len(self._names):
            lost = 0.0 if self._lost is None else -float(self._lost[group][kept])
            return self._observe(kept / units), lost, False, False, info
        plan = self.structure.plan(np.array(self._walk.kept))
        outcome = self._evaluate([plan])[0]
        observation = self._last.copy()
        observation[-1] = kept / units
        reward = outcome.reward + float(given_back(self._lost, np.array(self._walk.kept)))
        return observation, reward, True, False, info | {"plan": plan, "outcome": outcome}

    def _observe(self, last_density: float) -> Observation:
        walk, units, dense = self._walk, self._units[self._walk.group], self._dense
        (floor, ceiling), (least, most) = walk.costs, walk.interval
        floor /= dense
        observation: Observation = self._rows[walk.group].copy()
        observation[-CHANGING:] = (
            self._budget - floor, floor, ceiling / dense, least / units, most / units, last_density
        )  # fmt: skip
        self._last = observation
        return observation


def layerwise_observations() -> gymnasium.spaces.Box[np.float32]:
    return gymnasium.spaces.Box(LOWEST, HIGHEST, (len(FEATURE_NAMES),), np.float32)


def observation_rows(features: FloatArray, budget: float) -> Observation:
    """[groups, features and state]: what is the same in every episode, zeros elsewhere. budget: over dense."""
    state = np.zeros((len(features), 1 + CHANGING))
    state[:, 0] = budget
    return np.concatenate([features, state], axis=1).astype(np.float32)


def given_back(lost: Sequence[FloatArray] | None, kept: IntArray) -> NDArray[np.float64]:
    """What steps before the last have cost for potential's sake: kept [..., groups] → [...]."""
    if lost is None:
        return np.zeros(kept.shape[:-1])
    back = np.zeros(kept.shape[:-1])
    for group, table in enumerate(lost[:-1]):
        back = back + table[kept[..., group]]
    return back
