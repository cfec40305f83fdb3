"""The environments for many episodes in lockstep: array arithmetic, and all their plans in one call of the objective.

Episodes have one length, so all end together. They begin again in the same step: what is observed then is the next
episode's start, and `final_obs` and `final_info` are in infos, as Gymnasium has it for AutoresetMode.SAME_STEP.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from autoprune.cost.allocation import batch_allocator_of
from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.env.action_scale import Action, PlanScale
from autoprune.env.features import HIGHEST, LOWEST
from autoprune.env.layerwise import (
    CHANGING,
    FEATURE_NAMES,
    Evaluate,
    Observation,
    given_back,
    layerwise_observations,
    observation_rows,
)
from autoprune.env.one_shot import one_shot_observation
from autoprune.evaluation.outcome import Outcome
from autoprune.plan import PruningPlan
from autoprune.structure.groups import IntArray, Structure

Array = NDArray[Any]
Infos = dict[str, Any]
Step = tuple[Observation, Array, Array, Array, Infos]


class LayerwiseVectorEnv(VectorEnv[Observation, Action, Array]):
    """LayerwiseEnv for `num_envs` episodes; every one sees, does and earns exactly what it would alone.

    Actions [num_envs, 1]. infos: LayerwiseEnv's, each as an array over the episodes; at the end there are `plan` and
    `outcome` as well. Where evaluating raises, the episodes stay at their end, and reset() begins the next.
    """

    feature_names = FEATURE_NAMES

    def __init__(
        self,
        structure: Structure,
        *,
        num_envs: int,
        projector: Projector,
        evaluate: Evaluate,
        features: FloatArray,
        prior: IntArray | FloatArray | None = None,
        max_log_correction: float = 1.5,
        lost: Sequence[FloatArray] | None = None,
    ) -> None:
        self.structure, self.projector, self.num_envs = structure, projector, num_envs
        self._evaluate, self._lost = evaluate, lost
        self._scale = PlanScale.around(prior, structure, max_log_correction)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = layerwise_observations()
        self.single_action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._every = constant(True, num_envs)
        self._names = [constant(name, num_envs) for name in structure.names]
        self._units = structure.units.astype(np.float64).tolist()
        self._budget, self._dense = projector.budget.relative, projector.budget.dense
        self._rows = list(observation_rows(features, self._budget))
        self._executed = self._scale.executable(structure)
        self._walks = batch_allocator_of(projector, episodes=num_envs)
        self._state = np.empty((CHANGING, num_envs))  # STATE_FEATURES without the budget
        self._begin()

    def reset(self, *, seed: int | None = None, options: Infos | None = None) -> tuple[Observation, Infos]:
        check_whole(options)
        super().reset(seed=seed)
        return self._begin(), {}

    def step(self, actions: Action) -> Step:
        group = self._walks.group
        if group == len(self._units):
            raise gymnasium.error.ResetNeeded("all groups are decided: reset() begins the next episodes")
        units, many = self._units[group], self.num_envs
        wish = self._scale.density(np.asarray(actions, np.float64).reshape(many), group)
        wish *= units
        kept = self._walks.decide(wish)
        np.divide(kept, units, out=self._state[-1])
        executed = self._executed[group].take(kept)[:, None]
        infos = {
            "group": self._names[group], "_group": self._every, "executed_action": executed,
            "_executed_action": self._every,
        }  # fmt: skip
        if group + 1 < len(self._units):
            lost = np.zeros(many) if self._lost is None else -self._lost[group][kept]
            return self._observe(), lost, np.zeros(many, bool), np.zeros(many, bool), infos
        final = self._observation(group)
        plans = [self.structure.plan(row) for row in self._walks.kept]
        rewards, infos = _ended(plans, final, self._evaluate, infos)
        rewards = rewards + given_back(self._lost, self._walks.kept)
        return self._begin(), rewards, np.ones(many, bool), np.zeros(many, bool), infos

    def _begin(self) -> Observation:
        self._walks.restart()
        self._state[-1] = 1.0
        return self._observe()

    def _observe(self) -> Observation:
        walks, state = self._walks, self._state
        np.divide(walks.costs, self._dense, out=state[1:3])
        np.subtract(self._budget, state[1], out=state[0])
        np.divide(walks.interval, self._units[walks.group], out=state[3:5])
        return self._observation(walks.group)

    def _observation(self, group: int) -> Observation:
        observation = np.empty((self.num_envs, len(FEATURE_NAMES)), np.float32)
        observation[:] = self._rows[group]
        observation[:, -CHANGING:] = self._state.T
        return observation


class OneShotVectorEnv(VectorEnv[Observation, Action, Array]):
    """OneShotEnv for `num_envs` episodes: every step is a batch of whole plans. Actions [num_envs, groups]."""

    def __init__(
        self,
        structure: Structure,
        *,
        num_envs: int,
        projector: Projector,
        evaluate: Evaluate,
        features: FloatArray,
        prior: IntArray | FloatArray | None = None,
        max_log_correction: float = 1.5,
    ) -> None:
        self.structure, self.projector, self.num_envs = structure, projector, num_envs
        self._evaluate = evaluate
        self._scale = PlanScale.around(prior, structure, max_log_correction)
        self._observation = one_shot_observation(features, projector)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = gymnasium.spaces.Box(LOWEST, HIGHEST, self._observation.shape, np.float32)
        self.single_action_space = gymnasium.spaces.Box(-1, 1, (len(structure.groups),), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._every = constant(True, num_envs)

    def reset(self, *, seed: int | None = None, options: Infos | None = None) -> tuple[Observation, Infos]:
        check_whole(options)
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, actions: Action) -> Step:
        wish = np.asarray(actions, np.float64).reshape(self.action_space.shape or ())
        kept = self.projector.project(self._scale.density(wish))
        executed = self._scale.action(kept / self.structure.units)
        plans = [self.structure.plan(row) for row in kept]
        infos = {"executed_action": executed, "_executed_action": self._every}
        rewards, infos = _ended(plans, self._observe(), self._evaluate, infos)
        return self._observe(), rewards, np.ones(self.num_envs, bool), np.zeros(self.num_envs, bool), infos

    def _observe(self) -> Observation:
        return np.tile(self._observation, (self.num_envs, 1))


def _ended(
    plans: Sequence[PruningPlan], final: Observation, evaluate: Evaluate, infos: Infos
) -> tuple[FloatArray, Infos]:
    """The rewards, and all that is said of episodes that end."""
    last, outcomes = judged(plans, evaluate, infos)
    return np.array([outcome.reward for outcome in outcomes], np.float64), last | finals(final, last)


def judged(plans: Sequence[PruningPlan], evaluate: Evaluate, infos: Infos) -> tuple[Infos, list[Outcome]]:
    """The plans' outcomes, and what is said of them: one call of the objective."""
    every = infos["_executed_action"]
    outcomes = evaluate(plans)
    return infos | {"plan": objects(plans), "_plan": every, "outcome": objects(outcomes), "_outcome": every}, outcomes


def finals(final: Observation, last: Infos) -> Infos:
    """What Gymnasium wants of episodes that begin again in the step that ends them."""
    every = last["_executed_action"]
    return {"final_obs": objects(final), "_final_obs": every, "final_info": dict(last), "_final_info": every}


def objects(values: Sequence[Any] | Observation) -> Array:
    column = np.empty(len(values), object)
    for at, value in enumerate(values):
        column[at] = value
    return column


def constant(value: Any, many: int) -> Array:
    """[many], read-only, as it is handed out at every step."""
    column = np.full(many, value, object if isinstance(value, str) else None)
    column.flags.writeable = False
    return column


def check_whole(options: Infos | None) -> None:
    mask = (options or {}).get("reset_mask")
    if mask is not None and not np.all(mask):
        raise ValueError("episodes in lockstep begin together: reset all of them, not those of a reset_mask")
