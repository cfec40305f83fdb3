"""Editing a plan: each step changes a few groups of it, and episodes begin at the best plan so far."""

from dataclasses import dataclass, field

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.env.action_scale import Action, PlanScale
from autoprune.env.features import HIGHEST, LOWEST
from autoprune.env.layerwise import Evaluate, Observation
from autoprune.env.one_shot import one_shot_observation
from autoprune.env.vector_envs import Array, Infos, Step, check_whole, constant, finals, judged
from autoprune.evaluation.outcome import Outcome
from autoprune.structure.groups import IntArray, Structure


@dataclass(slots=True, eq=False)
class Editing:
    """What edits mean, and the best plan so far, which all environments of one search share.

    start: a plan that was evaluated, inside the budget. edits: how many groups an action changes at most.
    max_log_correction: how far, in log-densities. length: edits in an episode. What an edit earns is what it gains over
    the plan that it was made on, as a fraction of the start's reward; so an episode's return is what it gains over the
    best plan so far.
    """

    structure: Structure
    projector: Projector
    start: Outcome
    edits: int
    max_log_correction: float
    length: int = 1
    best: Outcome = field(init=False)
    unit: float = field(init=False)  # of rewards

    def __post_init__(self) -> None:
        if not 1 <= self.edits <= len(self.structure.groups):
            raise ValueError(
                f"edits is how many of the {len(self.structure.groups)} groups an action changes, got {self.edits}"
            )
        if self.max_log_correction <= 0 or self.length < 1:
            raise ValueError(
                "max_log_correction must be positive and length at least 1, got "
                f"{self.max_log_correction} and {self.length}"
            )
        if not self.start.feasible:
            raise ValueError(f"edits begin at a plan inside the budget; {self.start.plan.kept} exceeds it")
        self.best, self.unit = self.start, abs(self.start.reward) or 1.0

    def edited(self, kept: IntArray, actions: Action) -> tuple[IntArray, Action]:
        """kept and actions [episodes, groups] → the plans that were made of them, and what was executed.

        An action's largest entries are carried out and the others are not; the budget is restored by all groups alike.
        """
        wish = np.clip(np.asarray(actions, np.float64), -1, 1)
        if np.isnan(wish).any():
            raise ValueError(f"edits must be numbers, got {np.asarray(actions).tolist()}")
        by_size = np.argsort(-np.abs(wish), axis=-1, kind="stable")  # of equal ones, the first
        np.put_along_axis(wish, by_size[:, self.edits :], 0.0, axis=-1)
        scale = PlanScale.around(kept, self.structure, self.max_log_correction)  # every episode's own
        made = self.projector.project(scale.density(wish))
        return made, scale.action(made / self.structure.units)

    def gains(self, outcomes: list[Outcome], before: FloatArray) -> FloatArray:
        """What each outcome earns over the rewards before it [episodes]; the best plan so far is remembered."""
        for outcome in outcomes:
            if outcome.feasible and outcome.whole and outcome.reward > self.best.reward:
                self.best = outcome
        gains: FloatArray = (np.array([outcome.reward for outcome in outcomes]) - before) / self.unit
        return gains


class EditEnv(gymnasium.Env[Observation, Action]):
    """Action [groups] in [−1, 1]: changes of log-densities over `max_log_correction`; 0 changes nothing.

    Observation: every group's GROUP_FEATURES and its present density, and the budget over dense. info:
    `executed_action`, `plan`, `outcome`, at every step, since every step evaluates a plan. EditVectorEnv is the same
    for many episodes at once. A reset with a seed forgets all plans but the start.
    """

    def __init__(self, editing: Editing, *, evaluate: Evaluate, features: FloatArray) -> None:
        self._many = EditVectorEnv(editing, num_envs=1, evaluate=evaluate, features=features)
        self.editing = editing
        self.observation_space = self._many.single_observation_space
        self.action_space = self._many.single_action_space

    def reset(self, *, seed: int | None = None, options: Infos | None = None) -> tuple[Observation, Infos]:
        super().reset(seed=seed)
        return self._many.reset(seed=seed)[0][0], {}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, Infos]:
        observations, rewards, over, _, infos = self._many.step(np.asarray(action)[None])
        last = infos["final_obs"][0] if over[0] else observations[0]
        said = {key: infos[key][0] for key in ("executed_action", "plan", "outcome")}
        return last, float(rewards[0]), bool(over[0]), False, said


class EditVectorEnv(VectorEnv[Observation, Action, Array]):
    """EditEnv for `num_envs` episodes: every step is a batch of whole plans. Actions [num_envs, groups]."""

    def __init__(self, editing: Editing, *, num_envs: int, evaluate: Evaluate, features: FloatArray) -> None:
        self.editing, self.num_envs, self._evaluate = editing, num_envs, evaluate
        self._fixed = one_shot_observation(features, editing.projector)
        self._features = features
        groups = len(editing.structure.groups)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = gymnasium.spaces.Box(LOWEST, HIGHEST, (self._fixed.size + groups,), np.float32)
        self.single_action_space = gymnasium.spaces.Box(-1, 1, (groups,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._every = constant(True, num_envs)
        self._kept = np.zeros((num_envs, groups), np.int64)
        self._rewards: FloatArray = np.zeros(num_envs)
        self._made = 0
        self._begin()

    def reset(self, *, seed: int | None = None, options: Infos | None = None) -> tuple[Observation, Infos]:
        check_whole(options)
        super().reset(seed=seed)
        if seed is not None:  # the same seed has to give the same episodes
            self.editing.best = self.editing.start
        return self._begin(), {}

    def step(self, actions: Action) -> Step:
        kept, executed = self.editing.edited(self._kept, np.asarray(actions).reshape(self._kept.shape))
        plans = [self.editing.structure.plan(row) for row in kept]
        infos: Infos = {"executed_action": executed, "_executed_action": self._every}
        infos, outcomes = judged(plans, self._evaluate, infos)
        rewards = self.editing.gains(outcomes, self._rewards)
        self._kept, self._rewards, self._made = kept, np.array([o.reward for o in outcomes]), self._made + 1
        if self._made < self.editing.length:
            nobody = np.zeros(self.num_envs, bool)
            return self._observe(), rewards, nobody, nobody.copy(), infos
        final = finals(self._observe(), infos)
        return self._begin(), rewards, np.ones(self.num_envs, bool), np.zeros(self.num_envs, bool), infos | final

    def _begin(self) -> Observation:
        best = self.editing.best
        self._kept = np.tile(np.array(best.plan.kept, np.int64), (self.num_envs, 1))
        self._rewards = np.full(self.num_envs, best.reward)
        self._made = 0
        return self._observe()

    def _observe(self) -> Observation:
        density = self._kept / self.editing.structure.units
        fixed = np.tile(self._features, (self.num_envs, 1, 1))
        seen = np.concatenate([fixed, density[..., None]], axis=-1).reshape(self.num_envs, -1)
        budget = np.full((self.num_envs, 1), self.editing.projector.budget.relative)
        return np.concatenate([seen, budget], axis=1).astype(np.float32)
