"""A pool of workers, and the one that is this process itself."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from autoprune.evaluation.outcome import Judged

if TYPE_CHECKING:  # a worker loads torch only where its evaluator does
    from autoprune.evaluation.evaluator import Evaluator


@dataclass(frozen=True, slots=True)
class JudgeJob:
    """A plan, as units kept per group, to be judged on the proxy batches start … stop - 1."""

    kept: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Failure:
    """The plan of a job cannot be judged, and would not be the next time either."""

    reason: str


Result = list[Judged] | Failure  # a Judged for each batch of the job


class Pool(Protocol):
    """Judges jobs somewhere; answers come as they are ready, so that each can be written down at once.

    size: how many jobs run at the same time.
    """

    size: int

    def judge(self, jobs: Sequence[JudgeJob]) -> Iterator[tuple[JudgeJob, Result]]:
        """One answer for each job, in any order."""

    def close(self) -> None:
        """Ends the workers; they have no state. May be called more than once."""


class InProcess:
    """Judges here, one job at a time, with this process's threads. It cannot stop a job that takes too long.

    A FloatingPointError is the plan's own and becomes its Failure; other exceptions come through: a bug should be seen.
    """

    size = 1

    def __init__(self, evaluator: "Evaluator") -> None:
        self._evaluator = evaluator

    def judge(self, jobs: Sequence[JudgeJob]) -> Iterator[tuple[JudgeJob, Result]]:
        for job in jobs:
            yield job, judged(job, evaluator=self._evaluator)

    def close(self) -> None:
        """There is nothing to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def judged(job: JudgeJob, *, evaluator: "Evaluator") -> Result:
    """What the evaluator says of the job; outputs that are not finite are the plan's Failure."""
    try:
        return evaluator.judge(job.kept, job.start, job.stop)
    except FloatingPointError as error:
        return Failure(f"the plan that keeps {list(job.kept)} units: {error}")
