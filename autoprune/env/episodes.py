"""What all environments have in common: episodes of one length in lockstep, whose plans are one batch to evaluate."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from autoprune.cost.projection import Projector
from autoprune.env.rendering import RENDER_MODES, Picture, checked_rendering, picture_of
from autoprune.evaluation.outcome import Outcome
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem
from autoprune.ranges import nearest
from autoprune.structure.groups import IntArray, Structure

Array = NDArray[Any]
Infos = dict[str, Any]
Observation = NDArray[np.float32]
Step = tuple[Observation, Array, Array, Array, Infos]
Evaluate = Callable[[Sequence[PruningPlan]], list[Outcome]]

LOWEST, HIGHEST = -1.0, 20.0  # bounds of every feature: shares are within [0, 1], logarithms far below 20
UNDECIDED = -1  # units, in what is rendered


@dataclass(slots=True)
class Transition:
    """What one step did to all episodes."""

    observation: Observation
    """After the step [num_envs, features]."""
    rewards: Array
    """[num_envs]"""
    over: bool
    """Whether the episodes end with this step."""
    executed: Array
    """What became of the actions, on their scale [num_envs, ...]."""
    infos: Mapping[str, Any] = field(default_factory=dict)
    """Other values of the step's info, each [num_envs]."""


class PlanVectorEnv(VectorEnv[Observation, Array, Array]):
    """Episodes of one length that begin and end together; a subclass says how they begin and what a step does.

    `executed_action` is in infos at every step, `plan` and `outcome` wherever plans were evaluated. With
    AutoresetMode.SAME_STEP the episodes begin again in the step that ends them, and `final_obs` and `final_info` are in
    infos; with NEXT_STEP the step after that only begins them; with DISABLED reset() does. Where evaluating raises, the
    episodes stay at their end until reset().

    Args:
        num_envs: Episodes at once.
        structure: Groups that plans decide on.
        projector: Holds the budget.
        evaluate: Judges a batch of plans.
        observation_space: Of one episode.
        action_space: Of one episode.
        feature_names: A name for every number of one observation.
        autoreset_mode: What happens after the last step.
        render_mode: None, "ansi" for a text per episode, or "rgb_array" for a picture.
    """

    def __init__(  # noqa: PLR0913 - keyword-only: what an environment is of
        self,
        *,
        num_envs: int,
        structure: Structure,
        projector: Projector,
        evaluate: Evaluate,
        observation_space: Box,
        action_space: Box | Discrete,
        feature_names: Sequence[str],
        autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"at least one episode is needed, got num_envs={num_envs}")
        self.num_envs, self.structure, self.projector, self.evaluate = num_envs, structure, projector, evaluate
        self.metadata = {"autoreset_mode": autoreset_mode, "render_modes": [*RENDER_MODES]}
        self.render_mode = checked_rendering(render_mode)
        self.feature_names = tuple(feature_names)
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.kept: IntArray = np.full((num_envs, len(structure.groups)), UNDECIDED)
        self.outcomes: Sequence[Outcome] = ()
        self.problem: Problem | None = None
        """What is searched, where a factory made the environment: it prunes by plans, and counts evaluations."""
        self._over = False
        self._every = constant(True, num_envs)

    @abstractmethod
    def _begin(self) -> Observation:
        """Begins the next episodes; returns what is observed [num_envs, features]."""

    @abstractmethod
    def _advance(self, actions: Array) -> Transition:
        """Executes one step of all episodes; sets `kept` and `outcomes`, which are rendered."""

    def reset(self, *, seed: int | None = None, options: Infos | None = None) -> tuple[Observation, Infos]:
        mask = checked_options(options, ("reset_mask",)).get("reset_mask")
        if mask is not None and not np.all(mask):
            raise ValueError("episodes in lockstep begin together: reset all of them, not those of a reset_mask")
        super().reset(seed=seed)
        self._over = False
        return self._begin(), {}

    def step(self, actions: Array) -> Step:
        mode, none = self.metadata["autoreset_mode"], np.zeros(self.num_envs, bool)
        values = checked_actions(actions, self.single_action_space, shape=self.action_space.shape or ())
        if self._over:
            if mode is not AutoresetMode.NEXT_STEP:
                raise gymnasium.error.ResetNeeded("the episodes are over: reset() begins the next")
            return self.reset()[0], np.zeros(self.num_envs), none, none.copy(), {}
        self._over = True  # also where evaluating raises
        done = self._advance(values)
        infos = self._masked({"executed_action": done.executed, **done.infos})
        if not done.over:
            self._over = False
            return done.observation, done.rewards, none, none.copy(), infos
        observation = done.observation
        if mode is AutoresetMode.SAME_STEP:
            final = {"final_obs": objects(observation), "_final_obs": self._every, "_final_info": self._every}
            infos |= final | {"final_info": dict(infos)}
            observation, self._over = self._begin(), False
        return observation, done.rewards, np.ones(self.num_envs, bool), none, infos

    def render(self) -> tuple[str, ...] | tuple[Picture, ...] | None:
        """Returns for each episode the units that groups keep, the plan's cost and its reward, once it has one.

        A picture has a bar for each group, and of one that is not decided none.
        """
        if self.render_mode is None:
            return None
        if self.render_mode == "rgb_array":
            return tuple(picture_of((row / self.structure.units).tolist()) for row in self.kept)
        return tuple(self._text(episode) for episode in range(self.num_envs))

    def _judged(self, kept: IntArray) -> tuple[Sequence[Outcome], Infos]:
        """Evaluates the plans kept [num_envs, groups]; returns outcomes, and what infos say of them."""
        plans = [self.structure.plan(row) for row in kept]
        self.kept, self.outcomes = kept, self.evaluate(plans)
        return self.outcomes, {"plan": objects(plans), "outcome": objects(self.outcomes)}

    def _masked(self, infos: Mapping[str, Any]) -> Infos:
        return {
            key: value for name, values in infos.items() for key, value in ((name, values), (f"_{name}", self._every))
        }

    def _text(self, episode: int) -> str:
        kept, cost, budget = self.kept[episode], self.projector.budget.cost, self.projector.budget
        rows = [
            f"{name}: {'-' if units == UNDECIDED else units} of {group.units} {group.granularity}s"
            for name, units, group in zip(self.structure.names, kept.tolist(), self.structure.groups, strict=True)
        ]
        if (kept != UNDECIDED).all():
            rows.append(f"{cost.name}: {float(cost(kept)) / budget.dense:.3f} of dense, budget {budget.relative:.3f}")
        if self.outcomes:
            rows.append(f"reward: {self.outcomes[episode].reward:.4f}")
        return "\n".join(rows)


class SingleEpisode(gymnasium.Env[Observation, Any]):
    """A vector environment with one row, as gymnasium.Env.

    >>> env = SingleEpisode(partial(OneShotVectorEnv, structure, projector=projector, ...))  # doctest: +SKIP

    Args:
        make: Returns the vector environment for num_envs and autoreset_mode.
    """

    def __init__(self, make: Callable[..., PlanVectorEnv]) -> None:
        self.episodes = make(num_envs=1, autoreset_mode=AutoresetMode.DISABLED)
        self.metadata = {
            "render_modes": [*RENDER_MODES],
            "render_fps": 1,
        }  # gymnasium's checkers warn where none is said
        self.render_mode = self.episodes.render_mode
        self.feature_names = self.episodes.feature_names
        self.observation_space = self.episodes.single_observation_space
        self.action_space = self.episodes.single_action_space

    @property
    def structure(self) -> Structure:
        """Groups that plans decide on."""
        return self.episodes.structure

    @property
    def projector(self) -> Projector:
        """Holds the budget."""
        return self.episodes.projector

    @property
    def problem(self) -> Problem | None:
        """What is searched, where a factory made the environment: it prunes by plans, and counts evaluations."""
        return self.episodes.problem

    def reset(self, *, seed: int | None = None, options: Infos | None = None) -> tuple[Observation, Infos]:
        super().reset(seed=seed)
        return self.episodes.reset(seed=seed, options=options)[0][0], {}

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, Infos]:
        values = checked_actions(action, self.action_space, shape=self.action_space.shape or ())
        observations, rewards, over, _, infos = self.episodes.step(values[None])
        info = {key: values[0] for key, values in infos.items() if not key.startswith("_")}
        return observations[0], float(rewards[0]), bool(over[0]), False, info

    def render(self) -> str | Picture | None:
        views = self.episodes.render()
        return None if views is None else views[0]


def checked_actions(actions: Any, space: gymnasium.Space[Any], *, shape: tuple[int, ...]) -> Array:
    """Returns the actions as numbers of that shape.

    Args:
        actions: What an agent returned: numbers in [−1, 1], or levels.
        space: Of one action.
        shape: That the actions must have, episodes included.

    Raises:
        ValueError: Others, or levels outside the space.
    """
    try:
        values = np.asarray(actions, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"actions must be numbers of shape {shape}, got {actions!r}") from None
    if values.shape != shape:
        raise ValueError(f"actions must have the shape {shape}, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"actions must be finite numbers, got {values.tolist()}")
    if not isinstance(space, Discrete):
        return values
    levels = values.astype(np.int64)
    if (levels != values).any() or levels.min() < 0 or levels.max() >= space.n:
        raise ValueError(f"actions must be levels from 0 to {space.n - 1}, got {values.tolist()}")
    return levels


def checked_options(options: Infos | None, allowed: Sequence[str] = ()) -> Infos:
    """Returns what reset() was asked for beside a seed.

    Args:
        options: Of reset(); None for none.
        allowed: Names that there are.

    Raises:
        ValueError: There is no such option.
    """
    if not isinstance(options, Mapping | None):
        raise ValueError(f"options of reset() must be a table or None, got {options!r}")
    if unknown := sorted({} if options is None else options.keys() - {*allowed}):
        there = f"it has {', '.join(allowed)}" if allowed else "it has none"
        raise ValueError(f"reset() has no option {unknown[0]!r}{nearest(unknown[0], allowed)}; {there}")
    return dict(options or {})


def objects(values: Sequence[Any] | Observation) -> Array:
    """Returns the values as an array of objects [values]."""
    column = np.empty(len(values), object)
    for index, value in enumerate(values):
        column[index] = value
    return column


def constant(value: Any, size: int) -> Array:
    """Returns the value `size` times, read-only, as it is handed out at every step.

    Args:
        value: The same for every episode.
        size: How many episodes there are.
    """
    column = np.full(size, value, object if isinstance(value, str) else None)
    column.flags.writeable = False
    return column
