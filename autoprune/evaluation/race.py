"""Racing: what is clearly losing on a few samples is not judged on all (compare Maron and Moore, NIPS 1993; irace)."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from autoprune.ranges import Growth, Positive, Share, check_fields

Key = TypeVar("Key")
PRECISE = 0.15  # a loss is known well enough where its standard error is this share of it
FEWEST = 4  # blocks, of which a standard error says something

Rewards = NDArray[np.float64]  # of blocks of samples, the same blocks for every plan
Batches = Sequence[int]  # of the proxy, ascending


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a selection."""

    batches: Batches
    """The proxy's batches that those who are left are judged on."""
    survivors: int
    """How many go on, at most."""


@dataclass(frozen=True, slots=True)
class Race:
    """How a batch of plans is raced on growing, common parts of the proxy samples.

    A plan leaves when it is behind the leader by more than `errors` standard errors of their paired difference, or when
    `1/growth` of those that began the stage are ahead of it (at least one stays).
    """

    first: Share = 0.1
    """The part that every plan is judged on, in (0, 1]."""
    growth: Growth = 2.0
    """By how much the part grows from stage to stage, above 1."""
    errors: Positive = 3.0
    """Standard errors that a plan may be behind, above 0."""

    def __post_init__(self) -> None:
        check_fields(self, "evaluation.race")

    def stages(self, batches: int) -> Iterator[int]:
        """On how many of the proxy's batches those who are left are judged, stage by stage; the last one: on all."""
        seen, part = 0, self.first
        while seen < batches:
            seen = min(batches, max(seen + 1, round(part * batches)))
            part *= self.growth
            yield seen

    def least_share(self, batches: int, *, plans: int) -> float:
        """The part of all judging that is done where as many plans leave at each stage as may, in (0, 1].

        Args:
            batches: Of the proxy.
            plans: That begin the race together.
        """
        left, seen, judged = plans, 0, 0
        for stop in self.stages(batches):
            judged += left * (stop - seen)
            left, seen = math.ceil(left / self.growth), stop
        return judged / (plans * batches)

    def survivors(
        self, rewards: Mapping[Key, Rewards], samples: NDArray[np.int32], against: Rewards | None = None
    ) -> list[Key]:
        """The plans that go on, in their order.

        Args:
            rewards: Plan → its rewards, block by block [blocks].
            samples: How many each block holds [blocks].
            against: Rewards of a plan that has to be beaten and is not in the race [blocks]; None for none.
        """
        weights = np.asarray(samples, np.float64)
        mean = {key: float(np.average(values, weights=weights)) for key, values in rewards.items()}
        ranked = sorted(mean, key=lambda key: -mean[key])  # stable: earlier plans first among equals
        leader = rewards[ranked[0]]
        if against is not None and np.average(against, weights=weights) > mean[ranked[0]]:
            leader = against
        most = math.ceil(len(ranked) / self.growth)
        ahead = {key for key in ranked[:most] if not self.is_behind(rewards[key], leader, weights)}
        return [key for key in rewards if key in ahead]

    def is_behind(self, rewards: Rewards, leader: Rewards, weights: Rewards) -> bool:
        """By more than `errors` standard errors of the paired difference.

        Args:
            rewards: Its rewards, block by block.
            leader: The best plan's rewards, block by block.
            weights: Samples of each block.
        """
        difference = leader - rewards
        mean = float(np.average(difference, weights=weights))
        if mean <= 0:
            return False
        if len(difference) < 2:
            return False  # one block says nothing of its own error
        variance = float(np.average((difference - mean) ** 2, weights=weights))
        return mean > self.errors * math.sqrt(variance / (len(difference) - 1))


def is_precise(losses: Rewards, weights: Rewards) -> bool:
    """Whether the mean loss is above 0 and its standard error is at most 15 % of it.

    Args:
        losses: What a plan loses against another one, block by block.
        weights: Samples of each block.
    """
    mean = float(np.average(losses, weights=weights))
    if mean <= 0 or len(losses) < FEWEST:
        return False
    variance = float(np.average((losses - mean) ** 2, weights=weights))
    return math.sqrt(variance / (len(losses) - 1)) <= PRECISE * mean


def runs_of(batches: Iterable[int]) -> list[tuple[int, int]]:
    """Returns the runs of consecutive numbers among ascending ones, each as (first, behind the last).

    >>> runs_of([0, 1, 2, 5, 7, 8])
    [(0, 3), (5, 6), (7, 9)]
    """
    runs: list[tuple[int, int]] = []
    for batch in batches:
        if runs and runs[-1][1] == batch:
            runs[-1] = runs[-1][0], batch + 1
        else:
            runs.append((batch, batch + 1))
    return runs
