"""A pool of workers: what it is asked, what it answers, and the one that is this process itself."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from autoprune.evaluation.outcome import Judged

if TYPE_CHECKING:
    from autoprune.evaluation.evaluator import Evaluator

ATTEMPTS = 2  # at a job: the first loss may be the worker's bad luck, the second is the plan's
LOST_STARTS = 3  # losses in a row without an answer to any job: the next would be lost as well

Initialize = Callable[[], None]


@dataclass(frozen=True, slots=True)
class JudgeJob:
    """A plan to be judged on some of the proxy's batches."""

    kept: tuple[int, ...]
    """Units kept, per group."""
    start: int
    """The first batch."""
    stop: int
    """The batch after the last."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The plan of a job cannot be judged, and would not be the next time either."""

    reason: str
    """A sentence that names the plan."""


Result = list[Judged] | Failure  # a Judged for each batch of the job


@dataclass(frozen=True, slots=True)
class Raised:
    """The evaluator has a bug: in a worker it raised something other than FloatingPointError."""

    traceback: str
    """As Python prints it."""


class Pool(Protocol):
    """Judges jobs somewhere; answers come as they are ready, so that each can be stored at once."""

    size: int
    """How many jobs run at the same time."""

    def judge(self, jobs: Sequence[JudgeJob]) -> Iterator[tuple[JudgeJob, Result]]:
        """Yields one answer for each job, in any order."""

    def close(self) -> None:
        """Ends the workers; they have no state. May be called more than once."""


class ClosesAtExit:
    """The context manager of a pool: leaving it closes the pool."""

    def close(self) -> None:
        """Ends the workers."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class InProcess(ClosesAtExit):
    """Judges here, one job at a time, with this process's threads. It cannot stop a job that takes too long.

    A FloatingPointError is the plan's own and becomes its Failure; other exceptions come through: a bug should be seen.
    """

    size = 1

    def __init__(self, evaluator: "Evaluator") -> None:
        self._evaluator = evaluator

    def judge(self, jobs: Sequence[JudgeJob]) -> Iterator[tuple[JudgeJob, Result]]:
        """Yields one answer for each job, in their order."""
        for job in jobs:
            yield job, judged(job, evaluator=self._evaluator)


def judged(job: JudgeJob, *, evaluator: "Evaluator") -> Result:
    """Returns what the evaluator says of the job; outputs that are not finite are the plan's Failure.

    Args:
        job: What is to be judged.
        evaluator: Judges plans on batches of samples.
    """
    try:
        return evaluator.judge(job.kept, job.start, job.stop)
    except FloatingPointError as error:
        return Failure(f"the plan that keeps {list(job.kept)} units: {error}")


def judged_in_worker(job: JudgeJob, *, evaluator: "Evaluator") -> Result | Raised:
    """Returns what a worker answers to a job: what the evaluator says, or the traceback of its bug.

    Args:
        job: What is to be judged.
        evaluator: Judges plans on batches of samples.
    """
    try:
        return judged(job, evaluator=evaluator)
    except Exception:
        return Raised(traceback.format_exc())


@dataclass(slots=True, eq=False)
class PendingJob:
    """A job without an answer yet."""

    job: JudgeJob
    """What is to be judged."""
    losses: list[str] = field(default_factory=list)
    """What became of the workers that had it: "was killed by SIGKILL", "took longer than …"."""

    def lose(self, reason: str) -> Failure | None:
        """Notes that a worker was lost over the job; returns its Failure if that was the last attempt."""
        self.losses.append(reason)
        if len(self.losses) < ATTEMPTS:
            return None
        first, second = self.losses
        what = f"{first}, twice" if first == second else f"first {first}, then {second}"
        return Failure(f"the plan that keeps {list(self.job.kept)} units: its worker {what}")


def check_pool_settings(workers: int, time_limit_s: float | None) -> None:
    """Raises ValueError unless there is at least one worker and the time limit, if any, is above 0 s.

    Args:
        workers: Processes of one thread each.
        time_limit_s: What one job may take, in seconds; None for any time.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}; evaluation.workers=0 judges without any")
    if time_limit_s is not None and not time_limit_s > 0:
        raise ValueError(f"a time limit must be above 0 s, got {time_limit_s}; null is no limit")
