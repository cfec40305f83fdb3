"""Hands jobs to workers, replaces those that die or take too long, and gives their jobs out a second time."""

import math
import os
import time
import traceback
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from autoprune.evaluation.workers.pool import Failure, JudgeJob, Result, judged

if TYPE_CHECKING:
    from autoprune.evaluation.evaluator import Evaluator

ATTEMPTS = 2  # at a job: the first loss may have been the worker's bad luck, the second is the plan's
LOSSES = 3  # of workers in a row without an answer to any job: the next would be lost as well
START_LIMIT_S = 600.0  # importing torch from a slow disk takes a minute


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has started, and waits for jobs."""


@dataclass(frozen=True, slots=True)
class Raised:
    """The evaluator has a bug: it raised something other than FloatingPointError."""

    traceback: str


@dataclass(frozen=True, slots=True)
class Gone:
    """The worker is no more. reason: what it did, "was …" or "took …". detail: what else there is to say."""

    reason: str
    detail: str = ""


Answer = Ready | Result | Raised | Gone


class Worker(Protocol):
    """Judges one job after another, somewhere else. It answers Ready once, then each job; compared by identity."""

    def send(self, job: JudgeJob) -> bool:
        """Returns at once; False where the worker is known to be gone, which is then its next answer."""

    def receive(self) -> Answer:
        """Its next answer; called when that is there."""

    def kill(self) -> None:
        """It has ended when this returns, whatever it was doing; may be called more than once."""


W = TypeVar("W", bound=Worker)


class Host(Protocol[W]):
    """Where workers run."""

    def start(self) -> W:
        """Returns before the worker is ready, so that several start at the same time."""

    def answered(self, workers: Sequence[W], *, timeout_s: float | None) -> Collection[W]:
        """The workers that have an answer to give; waits for the first of them, or for so long. None: for ever."""

    def close(self) -> None:
        """The workers have ended before."""


class Crew(Generic[W]):
    """Workers on a host, as many as there is work for and at most `size`.

    A job whose worker dies, or is killed because the job took longer than time_limit_s (None: no limit), is given to
    another worker; the second time, it is a Failure. What an evaluator raises is a RuntimeError here. Of a judge() that
    was left early, workers finish the job that they have, and nobody hears of it.
    """

    def __init__(self, host: Host[W], *, size: int, time_limit_s: float | None) -> None:
        if size < 1:
            raise ValueError(f"workers must be at least 1, got {size}; evaluation.workers=0 judges without any")
        if time_limit_s is not None and not time_limit_s > 0:
            raise ValueError(f"a time limit must be above 0 s, got {time_limit_s}; null is no limit")
        self._host, self._size = host, size
        self._time_limit_s = math.inf if time_limit_s is None else time_limit_s
        self._seats: list[_Seat[W]] = []
        self._round: _Round | None = None
        self._losses = 0
        self._closed, self._process = False, os.getpid()

    def judge(self, jobs: Sequence[JudgeJob]) -> Iterator[tuple[JudgeJob, Result]]:
        if self._closed:
            raise RuntimeError("these workers were closed; make a new pool to judge more plans")
        self._round = current = _Round(jobs)
        while current.unanswered:
            try:
                self._advance(current)
            except BaseException:  # half an answer may have been read
                self._dismiss()
                raise
            while current.finished:
                yield current.finished.popleft()
            if self._round is not current:
                raise RuntimeError("judge() was called again, or close(), before all answers of this call were taken")
            if current.bug is not None:
                raise RuntimeError(f"judging a plan failed in a worker:\n{current.bug}")

    def close(self) -> None:
        if not self._closed and os.getpid() == self._process:  # a fork's copy is not the owner
            self._closed, self._round = True, None
            self._dismiss()
            self._host.close()

    def _dismiss(self) -> None:
        while self._seats:
            self._seats[-1].worker.kill()
            self._seats.pop()

    def _advance(self, current: "_Round") -> None:
        """Hands out what there is, waits for answers, and hands out again before anybody takes time over them."""
        self._fill(current)
        self._hand_out(current)
        for seat, answer in self._answers():
            self._settle(seat, answer, current)
        self._hand_out(current)

    def _fill(self, current: "_Round") -> None:
        """Starts workers where there are fewer than could work."""
        occupied = sum(seat.ticket is not None and seat.ticket.round is not current for seat in self._seats)
        while len(self._seats) < min(self._size, occupied + current.unanswered):
            self._seats.append(_Seat(self._host.start(), deadline=time.monotonic() + START_LIMIT_S))

    def _hand_out(self, current: "_Round") -> None:
        for seat in list(self._seats):
            if current.waiting and seat.ready and seat.ticket is None:
                if seat.worker.send(current.waiting[0].job):
                    seat.ticket = current.waiting.popleft()
                    seat.deadline = time.monotonic() + self._time_limit_s
                else:
                    self._settle(seat, seat.worker.receive(), current)

    def _answers(self) -> list[tuple["_Seat[W]", Answer]]:
        if not self._seats:
            return []
        left_s = min(seat.deadline for seat in self._seats) - time.monotonic()
        workers = [seat.worker for seat in self._seats]
        answered = self._host.answered(workers, timeout_s=None if left_s == math.inf else max(0.0, left_s))
        now = time.monotonic()
        return [
            (seat, seat.worker.receive() if seat.worker in answered else self._late(seat))
            for seat in self._seats
            if seat.worker in answered or seat.deadline <= now
        ]

    def _late(self, seat: "_Seat[W]") -> Gone:
        if seat.ready:
            return Gone(f"took longer than the time limit of {self._time_limit_s:g} s")
        return Gone(f"had not started after {START_LIMIT_S:g} s")

    def _settle(self, seat: "_Seat[W]", answer: Answer, current: "_Round") -> None:
        """The answer is known to whom it concerns."""
        ticket = seat.ticket
        if isinstance(answer, Gone):
            self._lose(seat, answer, current)
            return
        seat.ready, seat.ticket, seat.deadline = True, None, math.inf
        if ticket is None:
            return
        self._losses = 0
        if ticket.round is not current:
            return
        if isinstance(answer, Raised):
            current.bug = answer.traceback
        elif not isinstance(answer, Ready):
            current.answer(ticket, answer)

    def _lose(self, seat: "_Seat[W]", gone: Gone, current: "_Round") -> None:
        """The worker has ended; its job goes to the next worker, or has failed."""
        seat.worker.kill()
        self._seats.remove(seat)
        if seat.ticket is not None:
            if seat.ticket.round is current:
                current.retry(seat.ticket, gone.reason)
            return
        self._losses += 1
        if self._losses == LOSSES:
            raise RuntimeError(
                f"{LOSSES} workers in a row ended before they had judged anything, the last one {gone.reason}; "
                f"evaluation.workers=0 judges without workers. {gone.detail}".rstrip()
            )


@dataclass(slots=True, eq=False)
class _Seat(Generic[W]):
    """A worker and what it is at. deadline: on the monotonic clock, in s; the answer comes before, or is late."""

    worker: W
    deadline: float
    ready: bool = False
    ticket: "_Ticket | None" = None


@dataclass(slots=True, eq=False)
class _Ticket:
    """A job of a round, and what became of the workers that had it."""

    job: JudgeJob
    round: "_Round"
    losses: list[str] = field(default_factory=list)


class _Round:
    """The jobs of one judge(): those nobody has yet, how many have no answer, the answers nobody took yet."""

    def __init__(self, jobs: Sequence[JudgeJob]) -> None:
        self.waiting = deque(_Ticket(job, self) for job in jobs)
        self.unanswered = len(self.waiting)
        self.finished: deque[tuple[JudgeJob, Result]] = deque()
        self.bug: str | None = None

    def answer(self, ticket: _Ticket, result: Result) -> None:
        self.unanswered -= 1
        self.finished.append((ticket.job, result))

    def retry(self, ticket: _Ticket, loss: str) -> None:
        ticket.losses.append(loss)
        if len(ticket.losses) < ATTEMPTS:
            self.waiting.appendleft(ticket)
            return
        first, second = ticket.losses
        what = f"{first}, twice" if first == second else f"first {first}, then {second}"
        self.answer(ticket, Failure(f"the plan that keeps {list(ticket.job.kept)} units: its worker {what}"))


def answer(job: JudgeJob, *, evaluator: "Evaluator") -> Result | Raised:
    """What a worker answers to a job: what the evaluator says, or what it raised."""
    try:
        return judged(job, evaluator=evaluator)
    except Exception:
        return Raised(traceback.format_exc())
