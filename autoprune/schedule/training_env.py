"""What both environments have in common: a pruned training is an episode, and beginnings are trained once."""

import math
from abc import abstractmethod
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from autoprune.env.episodes import checked_options
from autoprune.env.rendering import RENDER_MODES, Picture, checked_rendering, picture_of
from autoprune.ranges import Count, FiniteNonNegative, FinitePositive, Natural, Share, check_fields
from autoprune.schedule.decision import Counted, Decision, PruningGoal, Start, density_after
from autoprune.schedule.engine import PruningRun
from autoprune.schedule.masked_training import Snapshot, TrainingRecipe
from autoprune.schedule.signals import BOUND, FEATURES, SignalMeter, Signals, accuracy_of
from autoprune.task.shipped import shipped_task
from autoprune.task.task import Task

Observation = NDArray[np.float32]
Action = Any
Measured = Literal["loss", "accuracy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSettings:
    """One pruned training that an agent steers."""

    density: Share | None = 0.05
    """Share of all weights that is kept in the end."""
    steps: FinitePositive = 300
    """The training budget, in steps of the dense network."""
    decisions: Count = 5
    """In an episode."""
    counted: Counted = "macs"
    """What spends the budget: "macs", as many as the masks leave, or "steps"."""
    granularity: str = "weight"
    """"weight", "channel" or N:M."""
    start: Start = "initial"
    """The weights that training begins at."""
    score: Measured = "loss"
    """What the reward at the end is, on the search role: the loss, negated, or the task's metric."""
    shaping: FiniteNonNegative = 1.0
    """Weight of the potential: minus the held-out loss if the target were reached now. It changes no return but by a
    constant."""
    seed: Natural = 0
    """Of the training."""
    remembered: Natural = 64
    """Beginnings of episodes that are kept, so that they are trained once."""

    def __post_init__(self) -> None:
        check_fields(self, "")


@dataclass(frozen=True, slots=True)
class _Moment:
    """All that an episode goes on from."""

    snapshot: Snapshot
    signals: Signals


class TrainingEnv(gymnasium.Env[Observation, Action]):
    """A network that trains and is pruned; every step decides, trains, and looks at what became of it.

    The reward is the held-out score at the end, and before it differences of a potential, which add up to a constant.
    The target density and the training budget are met at the end of every episode: what is left over is removed after
    the last step. Episodes are deterministic, and those that begin with the same actions share that beginning.

    Args:
        task: A shipped task's name, or a Task of one's own with labels.
        settings: Of the episodes.
        action_space: Of the subclass.
        recipe: Optimizer and learning rate; None: the defaults.
        render_mode: None, "ansi" or "rgb_array".
    """

    metadata = {"render_modes": [*RENDER_MODES], "render_fps": 1}  # noqa: RUF012  (gymnasium's)

    def __init__(
        self,
        task: str | Task,
        settings: EpisodeSettings,
        *,
        action_space: Box | Discrete,
        recipe: TrainingRecipe | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.settings, self.render_mode = settings, checked_rendering(render_mode)
        self.task = shipped_task(task) if isinstance(task, str) else task
        goal = PruningGoal(
            density=settings.density,
            steps=settings.steps,
            counted=settings.counted,
            granularity=settings.granularity,
            start=settings.start,
        )
        self.pruning = PruningRun(self.task, goal, recipe or TrainingRecipe(), settings.seed)
        if settings.steps < settings.decisions:
            raise ValueError(
                f"a training budget of {settings.steps:g} steps has no step for each of {settings.decisions} decisions"
            )
        self.feature_names = tuple(FEATURES)
        self.observation_space = Box(-BOUND, BOUND, (len(FEATURES),), np.float32)
        self.actions = self.action_space = action_space
        self.meter = self.pruning.meter = SignalMeter(self.pruning, settings.decisions)
        self._tree: OrderedDict[tuple[Any, ...], _Moment] = OrderedDict()
        self._first = self._moment = self._now()
        self._path: tuple[Any, ...] = ()
        self._over = True
        self.trained = 0
        """Intervals that were trained; those that were remembered do not count."""

    @abstractmethod
    def _decision(self, action: Action) -> tuple[Decision, Any]:
        """The decision of an action that was checked, and the action that is executed, on its own scale."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        checked_options(options)
        super().reset(seed=seed)
        self._path, self._over = (), False
        self._return_to(self._first)
        return self._moment.signals.array, {"density": self.pruning.density}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode is over: reset() begins the next")
        decision, executed = self._decision(checked_action(action, self.actions))
        before = self._moment.signals.lookahead
        self._path = (*self._path, _key(executed))
        remembered = self._tree.get(self._path)
        if remembered is None:
            self._train(decision)
        else:
            self._tree.move_to_end(self._path)
            self._return_to(remembered)
        over = len(self._path) == self.settings.decisions
        info: dict[str, Any] = {"executed_action": executed, "density": self.pruning.density}
        signals = self._moment.signals
        if not over:
            return signals.array, self.settings.shaping * (before - signals.lookahead), False, False, info
        self._over = True
        pruned = self.pruning.finish()
        loss = self.meter.loss(self.task.data.search)
        accuracy = accuracy_of(self.pruning, self.task.data.search)
        score = -loss if self.settings.score == "loss" else accuracy
        info |= {"score": score, "loss": loss, "accuracy": accuracy, "pruned": pruned, "density": pruned.density}
        return signals.array, score + self.settings.shaping * before, True, False, info

    def render(self) -> str | Picture | None:
        """Returns the density and what is left of the training budget."""
        if self.render_mode is None:
            return None
        if self.render_mode == "rgb_array":
            return picture_of([self.pruning.density, 1 - self.pruning.progress])
        return (
            f"decision {len(self._path)} of {self.settings.decisions}: density {self.pruning.density:.4g}, "
            f"{1 - self.pruning.progress:.0%} of the training left"
        )

    def _train(self, decision: Decision) -> None:
        self.pruning.decide(decision)
        try:
            self.pruning.train()
        except FloatingPointError:  # as bad as it gets: the features and the score are at their bounds
            self.pruning.interval = None
            self.pruning.decisions += 1
        self.trained += 1
        self._moment = self._now()
        if self.settings.remembered:
            self._tree[self._path] = self._moment
            if len(self._tree) > self.settings.remembered:
                self._tree.popitem(last=False)

    def _now(self) -> _Moment:
        signals = self.meter.measure()
        return _Moment(self.pruning.snapshot(), signals)

    def _return_to(self, moment: _Moment) -> None:
        self.pruning.restore(moment.snapshot)
        self._moment = moment

    def next_density(self, share: float) -> float:
        """Returns the density after so much of the way to the target, in logarithms: 0 leaves it, 1 reaches it."""
        target = self.pruning.target / self.pruning.masking.total
        return density_after(share, density=self.pruning.density, target=target)


def checked_action(action: Action, space: Box | Discrete) -> Any:
    """Returns the action as numbers inside the space, clipped.

    Args:
        action: What an agent chose.
        space: The environment's action space.

    Raises:
        ValueError: It has another shape, or holds NaN or infinity.
    """
    shape = space.shape or ()
    try:
        values = np.asarray(action, dtype=float)
    except (TypeError, ValueError):
        values = np.full((), math.nan)
    if values.shape != shape or not np.isfinite(values).all():
        raise ValueError(f"actions must be finite numbers of shape {shape}, got {action!r}")
    if isinstance(space, Discrete):
        if not space.contains(int(values)) or values != int(values):
            raise ValueError(f"actions must be whole numbers from 0 to {space.n - 1}, got {action!r}")
        return int(values)
    return np.clip(values, space.low, space.high).astype(np.float32)


def _key(executed: Any) -> Any:
    return tuple(np.asarray(executed).tolist()) if np.ndim(executed) else float(executed)
