"""Timing that other programs hardly disturb: everything takes turns, and a minimum counts once it was met again."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.model import FloatArray
from autoprune.ranges import Batch, Count, Fraction, NonNegative, Positive, check_fields

Run = Callable[[], object]
Clock = Callable[[Run], float]
CLOCK_S = 5e-7  # what the clock itself is off


class UnstableTimingError(RuntimeError):
    """The machine was too busy for a measurement that would hold."""


@dataclass(frozen=True, slots=True)
class TimingPolicy:
    """How carefully is measured."""

    rounds: Batch
    """In which everything takes its turn, at least 2."""
    burst: Count
    """Runs in a turn, of which the fastest counts."""
    tolerance: Positive
    """The fraction within which two rounds agree."""
    most: Count
    """Rounds until which what two rounds do not agree on is measured again."""
    unstable: Fraction
    """The share that may still not agree then."""
    drift: NonNegative
    """The fraction by which a reference may be slower than at its best beside what counts."""
    patience_s: NonNegative
    """Seconds that a chunk is measured again and again until it counts."""
    chunk: Count
    """Runs that are kept ready at once."""

    def __post_init__(self) -> None:
        check_fields(self, "device.care")


@dataclass(frozen=True, slots=True, eq=False)
class Timings:
    """Seconds of each run."""

    minimum: FloatArray
    """[runs]: the least of all rounds."""
    median: FloatArray
    """[runs]: the middle one of all rounds."""
    reference: FloatArray
    """[runs]: the least of a reference beside it."""

    def __getitem__(self, rows: slice | list[int]) -> "Timings":
        return Timings(self.minimum[rows], self.median[rows], self.reference[rows])


def take_turns(
    runs: Sequence[Run], *, clock: Clock, rounds: int, burst: int = 1, go_on: Callable[[int], bool] = lambda done: True
) -> FloatArray:
    """Seconds of every run in every round, the fastest of a burst.

    Args:
        runs: What is timed, in turn.
        clock: Run → seconds that it takes once.
        rounds: In which each has its turn.
        burst: Runs in a turn.
        go_on: (rounds done) → whether another one follows.

    Returns:
        [runs, rounds]
    """
    seconds: list[list[float]] = []
    while len(seconds) < rounds and (not seconds or go_on(len(seconds))):
        seconds.append([min(clock(run) for _ in range(burst)) for run in runs])
    return np.array(seconds, np.float64).reshape(-1, len(runs)).T


def measured(
    runs: Sequence[Run], *, clock: Clock, care: TimingPolicy
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """The least and the median seconds of every run, and whether two rounds agree on the least: [runs] each.

    Args:
        runs: What is timed, in turn.
        clock: Run → seconds that it takes once.
        care: How carefully.
    """
    take_turns(runs, clock=clock, rounds=1, burst=2)  # to warm up
    seconds = [list(row) for row in take_turns(runs, clock=clock, rounds=care.rounds, burst=care.burst)]
    agreed = np.array([_agrees(row, care.tolerance) for row in seconds])
    for _ in range(care.rounds, care.most):
        if agreed.all():
            break
        disputed = np.flatnonzero(~agreed).tolist()
        more = take_turns([runs[i] for i in disputed], clock=clock, rounds=1, burst=care.burst)
        for i, extra in zip(disputed, more[:, 0].tolist(), strict=True):
            seconds[i].append(extra)
            agreed[i] = _agrees(seconds[i], care.tolerance)
    return np.array([min(row) for row in seconds]), np.array([float(np.median(row)) for row in seconds]), agreed


class Steady:
    """Measures one chunk of runs after the other beside a reference, which shows when the machine is at its best.

    Args:
        reference: A run that is always the same.
        clock: Run → seconds that it takes once.
        care: How carefully is measured.
        best: The least seconds that the reference ever took; None: it was never measured.
    """

    def __init__(self, reference: Run, *, clock: Clock, care: TimingPolicy, best: float | None = None) -> None:
        self._reference, self._clock, self._care = reference, clock, care
        self.best = np.inf if best is None else best

    def __call__(self, runs: Sequence[Run]) -> Timings:
        """Raises UnstableTimingError where the reference stays slow, or minima are not met again, for too long."""
        care, started = self._care, time.monotonic()
        while True:
            least, median, agreed = measured([*runs, self._reference], clock=self._clock, care=care)
            self.best = min(self.best, float(least[-1]))
            drift, shaky = float(least[-1]) / self.best - 1, float((~agreed).mean())
            if drift <= care.drift and shaky <= care.unstable:
                return Timings(least[:-1], median[:-1], np.full(len(runs), least[-1]))
            if time.monotonic() > started + care.patience_s:
                raise UnstableTimingError(
                    f"the timings do not settle in {care.patience_s:.0f} s: a reference takes {drift:.0%} longer than "
                    f"at its best ({care.drift:.0%} would do), and {shaky:.0%} of what is timed does not repeat "
                    f"({care.unstable:.0%} would do). Stop what else runs on this machine and start the same command "
                    "again: what is measured is kept"
                )


def _agrees(seconds: Sequence[float], tolerance: float) -> bool:
    least, second = np.partition(np.asarray(seconds), 1)[:2]
    return bool(second <= least * (1 + tolerance) + CLOCK_S)
