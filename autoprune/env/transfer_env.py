"""Many networks and budgets in one environment: each episode is a whole plan for one of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.env.action_scale import Action, PlanScale
from autoprune.env.features import HIGHEST, LOWEST
from autoprune.env.layerwise import Evaluate, Observation
from autoprune.env.transfer_features import NOTHING, ROW_FEATURES, ReferencePlan, padded
from autoprune.env.vector_envs import Infos, Step, check_whole, constant, finals, judged
from autoprune.evaluation.outcome import Outcome
from autoprune.structure.groups import IntArray, Structure

MOST = 3.0  # that a reward says at most, either way: e³ is a plan that loses twenty times as much as the prior


@dataclass(frozen=True, slots=True, eq=False)
class TransferTask:
    """A network under a budget, as a carried policy sees it: rows [groups, features] and edges (see
    transfer_features.py).

    Actions [..., at least groups] correct the prior plan's log-densities, at most by `max_log_correction`; what they
    ask for is filled to the budget, and entries beyond the network's groups are ignored, and executed as 0. A reward is
    by how much the plan's KL is below the prior's, as a difference of logarithms: it means the same on any network.
    """

    name: str
    structure: Structure
    projector: Projector
    evaluate: Evaluate
    rows: FloatArray
    edges: FloatArray
    prior: ReferencePlan
    uniform: ReferencePlan
    max_log_correction: float
    _scale: PlanScale = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_scale", PlanScale.around(self.prior.kept, self.structure, self.max_log_correction))

    def observation(self, *, groups: int) -> Observation:
        """Padded to so many groups."""
        return padded(self.rows, self.edges, groups=groups)

    def project(self, actions: Action) -> IntArray:
        """The filled plans [many, groups] that actions [many, any] ask for."""
        return self.projector.project(self._scale.density(np.asarray(actions, np.float64)[:, : len(self.rows)]))

    def executable(self, actions: Action) -> Action:
        """What would be executed of actions [many, any]."""
        return self.action_of(self.project(actions), groups=actions.shape[1])

    def plans_of(self, executed: Action) -> IntArray:
        """The plans [many, groups] that executed actions [many, any] say."""
        units = self._scale.density(np.asarray(executed, np.float64)[:, : len(self.rows)]) * self.structure.units
        places = range(len(self.rows))
        return np.stack([self.projector.snap(units[:, place], place) for place in places], axis=1)

    def action_of(self, kept: IntArray, *, groups: int) -> Action:
        """The actions [many, groups] that come nearest to saying kept [many, groups of the network]."""
        found = np.zeros((len(kept), groups), np.float32)
        found[:, : len(self.rows)] = self._scale.action(np.asarray(kept) / self.structure.units)
        return found

    def reward(self, outcome: Outcome) -> float:
        """In [−MOST, MOST]; a plan that could not be judged earns the least."""
        if outcome.failed is not None:
            return -MOST
        gain = np.log(self.prior.lost + NOTHING) - np.log(max(0.0, outcome.metrics.kl) + NOTHING)
        return float(np.clip(gain, -MOST, MOST))


class TransferVectorEnv(VectorEnv[Observation, Action, Any]):
    """One-step episodes; those of a batch are in one setting, drawn evenly, so that its plans are judged together.

    groups: that observations and actions are padded to; None: those of the largest network. Observation and action:
    see Setting. info: `executed_action`, `plan`, `outcome`, and `setting`, its place among the settings.
    """

    def __init__(self, settings: Sequence[TransferTask], *, num_envs: int, groups: int | None = None) -> None:
        if not settings:
            raise ValueError("there is nothing to learn from: give at least one setting")
        largest = max(len(setting.rows) for setting in settings)
        self.groups = largest if groups is None else groups
        if self.groups < largest:
            raise ValueError(f"the largest network has {largest} groups, which do not fit {self.groups}")
        self.settings, self.num_envs, self.spent = settings, num_envs, 0
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        shape = (self.groups * (len(ROW_FEATURES) + self.groups),)
        self.single_observation_space = gymnasium.spaces.Box(LOWEST, HIGHEST, shape, np.float32)
        self.single_action_space = gymnasium.spaces.Box(-1, 1, (self.groups,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._observations = [setting.observation(groups=self.groups) for setting in settings]
        self._waiting: list[int] = []
        self._at = 0

    def reset(self, *, seed: int | None = None, options: Infos | None = None) -> tuple[Observation, Infos]:
        check_whole(options)
        super().reset(seed=seed)
        self._waiting = []
        return self._next(), {}

    def step(self, actions: Action) -> Step:
        at, setting = self._at, self.settings[self._at]
        kept = setting.project(np.asarray(actions, np.float32).reshape(self.action_space.shape or ()))
        every = constant(True, self.num_envs)
        said = {
            "executed_action": setting.action_of(kept, groups=self.groups),
            "_executed_action": every,
            "setting": constant(at, self.num_envs),
            "_setting": every,
        }
        last, outcomes = judged([setting.structure.plan(row) for row in kept], setting.evaluate, said)
        self.spent += self.num_envs
        rewards = np.array([setting.reward(outcome) for outcome in outcomes])
        final = np.tile(self._observations[at], (self.num_envs, 1))
        every, none = np.ones(self.num_envs, bool), np.zeros(self.num_envs, bool)
        return self._next(), rewards, every, none, last | finals(final, last)

    def _next(self) -> Observation:
        """All settings come in turn, each round in another order."""
        if not self._waiting:
            self._waiting = self.np_random.permutation(len(self.settings)).tolist()
        self._at = self._waiting.pop()
        return np.tile(self._observations[self._at], (self.num_envs, 1))
