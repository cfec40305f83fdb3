"""ScheduleTab: every schedule of two small networks, trained once, in files that NumPy alone reads (docs/schedules.md).

Five decision points, at each of which one of six shares of the way to the target is pruned: 7,776 schedules.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from autoprune.env.episodes import checked_options
from autoprune.env.rendering import RENDER_MODES, Picture, checked_rendering, picture_of
from autoprune.files import atomic_write
from autoprune.ranges import FiniteNonNegative
from autoprune.schedule.decision import Schedule, TrainingState, density_after
from autoprune.schedule.signals import BOUND, FEATURES

FORMAT = "autoprune schedule table 1"
DECISIONS, CHOICES = 5, 6
ZOO = Path(__file__).parent.parent / "zoo"
TableName = Literal["digits_mlp", "digits_cnn"]
Measure = Literal["search_loss", "search_accuracy", "test_loss", "test_accuracy"]
Choices = Sequence[int]  # of each decision point, 0 … 5

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ScheduleTable:
    """What became of every schedule, for several seeds of initialisation and data order.

    >>> table = ScheduleTable.shipped("digits_mlp")
    >>> table.measured["search_loss"].shape[1:]
    (6, 6, 6, 6, 6)
    """

    card: Mapping[str, Any]
    """JSON: network, settings, date, commit, versions, machine, how it was made."""
    measured: Mapping[str, NDArray[np.float32]]
    """Measure → every schedule's value [seeds, 6, 6, 6, 6, 6]; axis d is the choice at decision point d."""
    macs: NDArray[np.float32]
    """Training MACs of every schedule over those of a dense step, of the same shape."""
    features: NDArray[np.float16]
    """What is seen before each decision [seeds, 1 + 6 + 36 + 216 + 1296, features], first the beginning, then the
    states after one decision in order of its choice, then those after two, the last choice varying fastest."""
    lookahead: NDArray[np.float32]
    """The held-out loss if the target were reached there [seeds, 1555]."""

    @property
    def seeds(self) -> int:
        return int(self.macs.shape[0])

    @classmethod
    def shipped(cls, name: TableName) -> Self:
        """Returns the table that comes along."""
        return cls.load(ZOO / f"schedules_{name}.npz")

    def values(self, measure: Measure = "search_loss") -> FloatArray:
        """Returns the mean over seeds of every schedule's value [6, 6, 6, 6, 6], higher is better: losses negated."""
        means: FloatArray = self.measured[measure].astype(np.float64).mean(axis=0)
        return -means if measure.endswith("loss") else means

    def value(self, choices: Choices, measure: Measure = "search_loss") -> float:
        """Returns the mean over seeds of a schedule's value, higher is better.

        Args:
            choices: The increment of each decision point, in 0 to 5.
            measure: Which of the table's values is meant.
        """
        return float(self.values(measure)[checked_choices(choices)])

    def best(self, measure: Measure = "search_loss") -> tuple[tuple[int, ...], float]:
        """Returns the true best schedule and its value: exact, as all were trained."""
        values = self.values(measure)
        choices = np.unravel_index(int(values.argmax()), values.shape)
        return tuple(int(choice) for choice in choices), float(values.max())

    def regret(self, choices: Choices, measure: Measure = "search_loss") -> float:
        """Returns by how much the best schedule is better, at least 0.

        Args:
            choices: The increment of each decision point, in 0 to 5.
            measure: Which of the table's values is meant.
        """
        return self.best(measure)[1] - self.value(choices, measure)

    def densities(self, choices: Choices) -> list[float]:
        """Returns the density after each decision."""
        target, density, densities = float(self.card["target"]), 1.0, []
        for choice in checked_choices(choices):
            density = density_after(choice / (CHOICES - 1), density=density, target=target)
            densities.append(density)
        return densities

    def nearest(self, schedule: Schedule) -> tuple[int, ...]:
        """Returns the choices that keep nearest to a schedule's density at each decision point, in logarithms."""
        target, density, choices = float(self.card["target"]), 1.0, list[int]()
        for number in range(DECISIONS):
            wanted = _asked(schedule, number / DECISIONS, density, target)
            reach = [density_after(c / (CHOICES - 1), density=density, target=target) for c in range(CHOICES)]
            choice = int(np.argmin([abs(np.log(each / wanted)) for each in reach]))
            choices.append(choice)
            density = reach[choice]
        return tuple(choices)

    def node(self, choices: Choices) -> int:
        """Returns the row of `features` of the state after these decisions, fewer than five."""
        row = 0
        for choice in choices:
            row = row * CHOICES + int(choice)
        return row + nodes_above(len(choices))

    def save(self, path: Path) -> None:
        """One compressed file, without pickles, appears whole or not at all."""
        arrays = self._arrays()
        card = {**self.card, "format": FORMAT, "features": list(FEATURES), "checksum": _checksum(arrays)}
        with atomic_write(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, card=np.array(json.dumps(card, indent=1)), **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Returns what `save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is damaged, was edited, or is something else.
        """
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            card = json.loads(str(arrays.pop("card")))
            if card["format"] != FORMAT or card["checksum"] != _checksum(arrays):
                raise ValueError("its checksum or format differs")
            macs, features, lookahead = (arrays.pop(name) for name in ("macs", "features", "lookahead"))
        except FileNotFoundError:
            raise
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} is no table of schedules, or damaged: {error}") from error
        return cls(card, arrays, macs, features, lookahead)

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {**self.measured, "macs": self.macs, "features": self.features, "lookahead": self.lookahead}


class ScheduleTableEnv(gymnasium.Env[NDArray[np.float32], int]):
    """`gym.make("autoprune/ScheduleTab-v0", table="digits_mlp")`: the environment of the table, looked up.

    An action is one of six shares of the way to the target. Every episode is of one of the table's seeds, drawn at
    reset. After the fifth decision the reward is minus the held-out loss; before, differences of a potential (minus the
    loss if the target were reached now) are, which add up to a constant. The last observation is zeros: nothing is
    decided on it.
    """

    metadata = {"render_modes": [*RENDER_MODES], "render_fps": 1}  # noqa: RUF012  (gymnasium's)

    def __init__(
        self,
        *,
        table: TableName | ScheduleTable,
        measure: Measure = "search_loss",
        shaping: FiniteNonNegative = 1.0,
        seeds: Sequence[int] | None = None,
        render_mode: str | None = None,
    ) -> None:
        """Loads the table.

        Args:
            table: One that comes along, by name, or another.
            measure: What the reward at the end is of.
            shaping: Weight of the potential, at least 0.
            seeds: Rows of the table that episodes are drawn from; None: all.
            render_mode: None, "ansi" or "rgb_array".
        """
        self.table = ScheduleTable.shipped(table) if isinstance(table, str) else table
        self.measure, self.shaping, self.render_mode = measure, shaping, checked_rendering(render_mode)
        self.rows = list(range(self.table.seeds)) if seeds is None else list(seeds)
        if not self.rows or not set(self.rows) <= set(range(self.table.seeds)):
            raise ValueError(f"the table has the seeds 0 to {self.table.seeds - 1}, got {self.rows}")
        self.feature_names = tuple(FEATURES)
        self.observation_space = Box(-BOUND, BOUND, (len(FEATURES),), np.float32)
        self.action_space = Discrete(CHOICES)  # type: ignore[assignment]
        self._row, self._path = self.rows[0], [0] * DECISIONS

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        checked_options(options)
        super().reset(seed=seed)
        self._row, self._path = self.rows[int(self.np_random.integers(len(self.rows)))], []
        return self._seen(), {"seed": self._row}

    def step(self, action: int) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        if len(self._path) == DECISIONS:
            raise gymnasium.error.ResetNeeded("the episode is over: reset() begins the next")
        if not self.action_space.contains(np.int64(action)):
            raise ValueError(f"actions must be whole numbers from 0 to {CHOICES - 1}, got {action!r}")
        before = self.shaping * float(self.table.lookahead[self._row, self.table.node(self._path)])
        self._path.append(int(action))
        info: dict[str, Any] = {"executed_action": int(action), "density": self.table.densities(self._path)[-1]}
        if len(self._path) < DECISIONS:
            after = self.shaping * float(self.table.lookahead[self._row, self.table.node(self._path)])
            return self._seen(), before - after, False, False, info
        value = float(self.table.measured[self.measure][(self._row, *self._path)])
        score = -value if self.measure.endswith("loss") else value
        info |= {"score": score, "choices": tuple(self._path), "density": float(self.table.card["target"])}
        return np.zeros(len(FEATURES), np.float32), score + before, True, False, info

    def render(self) -> str | Picture | None:
        """Returns the densities that were decided on."""
        if self.render_mode is None:
            return None
        if self.render_mode == "rgb_array":
            return picture_of([*self.table.densities(self._path), *[0.0] * (DECISIONS - len(self._path))])
        densities = ", ".join(f"{density:.4g}" for density in self.table.densities(self._path))
        return f"decision {len(self._path)} of {DECISIONS}, seed {self._row}: densities {densities or 'not decided on'}"

    def _seen(self) -> NDArray[np.float32]:
        seen: NDArray[np.float32] = self.table.features[self._row, self.table.node(self._path)].astype(np.float32)
        return seen


def nodes_above(depth: int) -> int:
    """Returns how many states there are after fewer decisions than `depth`."""
    return int(sum(CHOICES**each for each in range(depth)))


def checked_choices(choices: Choices) -> tuple[int, ...]:
    """Returns the choices as a tuple. Raises ValueError for what is none of 0 … 5, or for more than five."""
    values = tuple(int(choice) for choice in choices)
    if len(values) > DECISIONS or not all(0 <= value < CHOICES for value in values):
        raise ValueError(f"a schedule is {DECISIONS} choices from 0 to {CHOICES - 1}, got {choices!r}")
    return values


def _asked(schedule: Schedule, progress: float, density: float, target: float) -> float:
    """The density that a schedule asks for at a share of the training, with as many decisions as it likes before."""
    wanted, now, number = density, 0.0, 0
    while now <= progress + 1e-9 and number < 1000:
        state = TrainingState(
            decision=number, density=wanted, target=target, progress=now, budget=1000.0, counted="steps", cost=1.0,
            step=round(1000 * now), loss=None, layers=(),
        )  # fmt: skip
        decision = schedule(state)
        wanted = min(1.0, max(target, decision.density_of_all))
        now, number = decision.until, number + 1
    return wanted


def _checksum(arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()[:16]
