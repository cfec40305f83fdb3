"""The objective revealed one group at a time: each step says how much of one group to keep (AMC, arXiv 1802.03494)."""

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.env.features import GROUP_FEATURES, HIGHEST, LOWEST, STATE_FEATURES
from autoprune.evaluation.outcome import Outcome
from autoprune.plan import PruningPlan
from autoprune.structure.groups import Structure

Evaluate = Callable[[Sequence[PruningPlan]], list[Outcome]]
Observation = NDArray[np.float32]
Action = NDArray[np.float32]

LEAST_DENSITY = 0.02  # what an action of −1 asks for


class LayerwiseEnv(gymnasium.Env[Observation, Action]):
    """One step per group, in the network's order; the reward comes with the last one.

    Action [1] in [−1, 1]: the group's density, −1 = almost nothing kept, 1 = all; it is moved into the interval from
    which the budget can still be met and used up, and onto an allowed level. Observation: GROUP_FEATURES and
    STATE_FEATURES of the group to decide. info: `executed_action`, what became of the action, on the action's scale;
    `group`; and at the end `plan` and `outcome`.
    """

    feature_names = GROUP_FEATURES + STATE_FEATURES

    def __init__(self, structure: Structure, *, projector: Projector, evaluate: Evaluate, features: FloatArray) -> None:
        self.structure, self.projector = structure, projector
        self._evaluate, self._features = evaluate, features
        self._cost, self._dense = projector.budget.cost, projector.budget.dense
        self.observation_space = gymnasium.spaces.Box(LOWEST, HIGHEST, (len(self.feature_names),), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self._group, self._last_density = 0, 1.0
        self._kept = structure.units
        self._interval = projector.interval(self._kept, 0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self._start()
        return self._observe(), {}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        group, units = self._group, self.structure.units[self._group]
        least, most = self._interval
        wished = density_of(np.asarray(action, np.float64)[0]) * units
        kept = self.projector.snap(np.clip(wished, least, most), group)
        self._kept[group] = np.clip(kept, least, most)
        self._last_density = float(self._kept[group] / units)
        info: dict[str, Any] = {
            "group": self.structure.groups[group].name,
            "executed_action": np.array([action_of(self._last_density)], np.float32),
        }
        self._group += 1
        if self._group < len(self.structure.groups):
            self._interval = self.projector.interval(self._kept, self._group)
            return self._observe(), 0.0, False, False, info
        plan = self.structure.plan(self._kept)
        outcome = self._evaluate([plan])[0]
        info |= {"plan": plan, "outcome": outcome}
        self._group -= 1  # the last observation still describes the last group
        return self._observe(), outcome.reward, True, False, info

    def _start(self) -> None:
        self._group, self._last_density = 0, 1.0
        self._kept = self.structure.units
        self._interval = self.projector.interval(self._kept, 0)

    def _observe(self) -> Observation:
        group, units = self._group, self.structure.units
        undecided = np.arange(len(units)) >= group
        extremes = np.where(undecided, np.stack([self.structure.floor, units]), self._kept)
        floor, ceiling = self._cost(extremes) / self._dense
        limit = self.projector.budget.relative
        least, most = self._interval
        state = (limit, limit - floor, floor, ceiling, least / units[group], most / units[group], self._last_density)
        return np.concatenate([self._features[group], state]).astype(np.float32)


def density_of(action: float) -> float:
    """[−1, 1] → the density that is asked for, in [LEAST_DENSITY, 1]."""
    return LEAST_DENSITY + (1 - LEAST_DENSITY) * (float(np.clip(action, -1, 1)) + 1) / 2


def action_of(density: float) -> float:
    """The action that asks for a density; below LEAST_DENSITY it is −1."""
    return float(np.clip(2 * (density - LEAST_DENSITY) / (1 - LEAST_DENSITY) - 1, -1, 1))
