"""An evaluator whose numbers are known beforehand, and an objective that asks it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from autoprune.evaluation import judge, reward
from autoprune.evaluation.evaluator import Evaluator
from autoprune.evaluation.objective import Objective
from autoprune.evaluation.outcome import Judged, Outcome
from autoprune.evaluation.race import Race
from autoprune.evaluation.store import Context
from autoprune.evaluation.workers import InProcess, JudgeJob, Pool
from autoprune.evaluation.workers.pool import Result, judged
from autoprune.problem.problem import Problem

Kept = tuple[int, ...]
BLOCKS, SAMPLES = 4, 5  # of each batch, of each block


@dataclass
class Table:
    """Says that a plan's KL on a block is −value(kept, batch, block), and remembers what it was asked."""

    value: Callable[[Kept, int, int], float]
    failing: frozenset[Kept] = frozenset()
    divisible: bool = True
    asked: list[JudgeJob] = field(default_factory=list)

    def judge(self, kept: Kept, start: int, stop: int) -> list[Judged]:
        self.asked.append(JudgeJob(kept, start, stop))
        if kept in self.failing:
            raise FloatingPointError("3 of its outputs are NaN or infinite")
        return [self.judged(kept, batch) for batch in range(start, stop)]

    def judged(self, kept: Kept, batch: int) -> Judged:
        values = np.zeros((4, BLOCKS), np.float32)
        values[2] = [-self.value(kept, batch, block) for block in range(BLOCKS)]
        return Judged(values, np.full(BLOCKS, SAMPLES, np.int32), 0.125)

    @property
    def batches_judged(self) -> int:
        return sum(job.stop - job.start for job in self.asked)


def by_size(kept: Kept, batch: int, block: int) -> float:
    """Larger networks are better; some samples are harder for all, and some for this one."""
    noise = np.random.default_rng([7, batch, block]).normal(), np.random.default_rng([*kept, batch, block]).normal()
    return sum(kept) + noise[0] + 0.1 * noise[1]


@dataclass
class Several:
    """A pool that does what one of that size would, here and in reverse order."""

    evaluator: Evaluator
    size: int
    given: list[JudgeJob] = field(default_factory=list)

    def judge(self, jobs: Sequence[JudgeJob]) -> Iterator[tuple[JudgeJob, Result]]:
        self.given += jobs
        for job in reversed(jobs):
            yield job, judged(job, evaluator=self.evaluator)

    def close(self) -> None: ...


def objective_by(
    evaluator: Evaluator,
    ready: Problem,
    *,
    batches: int = 8,
    race: Race | None = None,
    store: Context | None = None,
    pool: Pool | None = None,
) -> Objective:
    """The prepared task's objective, but for who judges."""
    return Objective(
        costs=ready.costs,
        budget=ready.projector.budget,
        score=judge.kl,
        reward=reward.under_budget,
        batches=batches,
        divisible=evaluator.divisible,
        pool=InProcess(evaluator) if pool is None else pool,
        store=store,
        race=race,
    )


def timeless(outcomes: Sequence[Outcome]) -> list[str]:
    """All that they say, to the bit, but for the time that it took."""
    return [repr({**outcome.as_json(), "whole": outcome.whole, "seconds": 0}) for outcome in outcomes]
