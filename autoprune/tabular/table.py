"""A table: every plan of one network, judged once, in a file that NumPy alone reads (docs/tables.md)."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from autoprune.evaluation.judge import Score, kl
from autoprune.evaluation.outcome import Judged, Metrics
from autoprune.evaluation.workers import JudgeJob
from autoprune.evaluation.workers.pool import Result
from autoprune.files import atomic_write
from autoprune.plan import PruningPlan
from autoprune.structure.axes import Kept
from autoprune.structure.groups import IntArray

FORMAT = "autoprune table 1"
COSTS = ("macs", "params")
METRICS = ("accuracy", "loss", "kl", "agreement")
On = Literal["proxy", "held_out"]
ON: tuple[On, On] = ("proxy", "held_out")


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """What every plan of a network costs, and how it was judged on the proxy and on held-out search samples.

    Each array of plans has one axis per group, [levels] · groups, and its place along that axis is the group's level.
    """

    card: Mapping[str, Any]
    """Where it all comes from, in JSON values."""
    groups: tuple[str, ...]
    """Their names."""
    units: tuple[int, ...]
    """How many units each group has."""
    levels: IntArray
    """How many each may keep, ascending [groups, levels]."""
    costs: Mapping[str, IntArray]
    """Cost name (macs, params) → the cost of every plan."""
    judged: Mapping[On, NDArray[np.float32]]
    """Samples (proxy, held_out) → accuracy, loss, kl and agreement of every plan [4, …]."""
    _places: tuple[dict[int, int], ...] = field(init=False)

    def __post_init__(self) -> None:
        steps = np.array([self.levels.shape[1] ** power for power in range(len(self.groups))][::-1])
        places = (zip(of.tolist(), range(len(of)), strict=True) for of in self.levels)
        offsets = tuple({k: int(step) * index for k, index in of} for of, step in zip(places, steps, strict=True))
        object.__setattr__(self, "_places", offsets)

    def __len__(self) -> int:
        return int(self.costs["macs"].size)

    def index(self, kept: Kept) -> int:
        """Where the plan stands in a flattened array. Raises ValueError for one that is not in the table."""
        try:
            return sum([of[k] for of, k in zip(self._places, kept, strict=True)])
        except (KeyError, ValueError):
            levels = {name: of.tolist() for name, of in zip(self.groups, self.levels, strict=True)}
            raise ValueError(f"no plan of the table keeps {list(kept)} units; its levels are {levels}") from None

    def plan(self, index: int) -> PruningPlan:
        """The plan at a place of the flattened arrays."""
        level = np.unravel_index(index, self.costs["macs"].shape)
        kept = self.levels[np.arange(len(level)), level]
        return PruningPlan(self.groups, self.units, tuple(kept.tolist()))

    def samples(self, on: On) -> int:
        return int(self.card[on]["samples"])

    def metrics(self, kept: Kept, *, on: On = "proxy") -> Metrics:
        """How the plan was judged.

        Args:
            kept: Units that each group keeps [groups].
            on: "proxy" or "held_out".
        """
        index = self.index(kept)
        return self._metrics(on, slice(index, index + 1))[0]

    def scores(self, score: Score = kl, *, on: On = "proxy") -> NDArray[np.float64]:
        """The score of every plan, flat: higher is better.

        Args:
            score: What is made of a network's metrics, higher is better.
            on: "proxy" or "held_out".
        """
        return np.array([score(metrics) for metrics in self._metrics(on)])

    def feasible(self, limit: float, *, cost: str = "macs") -> NDArray[np.bool_]:
        """Which plans cost at most `limit`, in that cost's unit, flat.

        Args:
            limit: The most that may be used, in the cost's unit.
            cost: The cost's name.
        """
        if cost not in self.costs:
            raise ValueError(f"the table has the costs {list(self.costs)}, not {cost!r}")
        within: NDArray[np.bool_] = self.costs[cost].ravel() <= limit
        if not within.any():
            raise ValueError(f"no plan has {cost} of at most {limit:g}; the least is {self.costs[cost].min()}")
        return within

    def best(
        self, limit: float, *, cost: str = "macs", score: Score = kl, on: On = "proxy"
    ) -> tuple[PruningPlan, float]:
        """The best plan of those that cost at most `limit`, and its score: exact, all were judged.

        Args:
            limit: The most that may be used, in the cost's unit.
            cost: The cost's name.
            score: What is made of a network's metrics, higher is better.
            on: "proxy" or "held_out".
        """
        index = int(self.regrets(limit, cost=cost, score=score, on=on).argmin())
        plan = self.plan(index)
        return plan, score(self.metrics(plan.kept, on=on))

    def regrets(self, limit: float, *, cost: str = "macs", score: Score = kl, on: On = "proxy") -> NDArray[np.float64]:
        """The best score within the limit less each plan's, flat; infinite for plans that cost more.

        Args:
            limit: The most that may be used, in the cost's unit.
            cost: The cost's name.
            score: What is made of a network's metrics, higher is better.
            on: "proxy" or "held_out".
        """
        scores = np.where(self.feasible(limit, cost=cost), self.scores(score, on=on), -np.inf)
        regrets: NDArray[np.float64] = scores.max() - scores
        return regrets

    def save(self, path: Path) -> None:
        """One compressed file, without pickles, which appears whole or not at all; equal tables make equal files."""
        arrays = self._arrays()
        card = {**self.card, "checksum": _checksum(arrays, self.card)}
        with atomic_write(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, card=np.array(json.dumps(card, indent=1)), **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises FileNotFoundError, or ValueError where the file is damaged, was edited or is something else."""
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            card = json.loads(str(arrays.pop("card")))
            if card["format"] != FORMAT:
                raise ValueError(f"it is of format {card['format']!r}, and this autoprune reads {FORMAT!r}")
            if card.pop("checksum") != _checksum(arrays, card):
                raise ValueError("its checksum is wrong: it was edited, or is not whole")
            judged = {on: np.stack([arrays[f"{on}_{metric}"] for metric in METRICS]) for on in ON}
            groups, units = tuple(arrays["groups"].tolist()), tuple(arrays["units"].tolist())
            costs = {cost: arrays[cost].astype(np.int64) for cost in COSTS}
            return cls(card, groups, units, arrays["levels"].astype(np.int64), costs, judged)
        except OSError:
            raise
        except Exception as error:  # a damaged archive raises almost anything
            raise ValueError(f"{path} is no table that can be used: {error}; restore it, or judge live") from error

    def _metrics(self, on: On, places: slice = slice(None)) -> list[Metrics]:
        """Of the plans at these places, to the bit as an objective sees them."""
        samples = self.samples(on)
        values = self.judged[on].reshape(4, -1)[:, places].T.astype(np.float64) * samples / samples
        return [
            Metrics(accuracy, loss, divergence, same, samples) for accuracy, loss, divergence, same in values.tolist()
        ]

    def _arrays(self) -> dict[str, NDArray[Any]]:
        judged = {f"{on}_{metric}": self.judged[on][row] for on in ON for row, metric in enumerate(METRICS)}
        return {
            "groups": np.array(self.groups),
            "units": np.array(self.units, np.int16),
            "levels": self.levels.astype(np.int16),
            **{cost: self.costs[cost].astype(np.int32) for cost in COSTS},
            **{name: values.astype(np.float32) for name, values in judged.items()},
        }


class TablePool:
    """Answers jobs from a table: the whole proxy is one batch of one block."""

    size = 1

    def __init__(self, table: Table) -> None:
        self._table = table
        self._values = np.ascontiguousarray(table.judged["proxy"].reshape(4, -1).T)[:, :, None]
        self._samples = np.array([table.samples("proxy")], np.int32)

    def judge(self, jobs: Sequence[JudgeJob]) -> Iterator[tuple[JudgeJob, Result]]:
        for job in jobs:
            yield job, [Judged(self._values[self._table.index(job.kept)], self._samples, 0.0)]

    def close(self) -> None:
        """There is nothing to end."""


def _checksum(arrays: Mapping[str, NDArray[Any]], card: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(card, sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
