"""Workers that are Ray actors, on this machine or on a cluster's."""

import importlib
import math
import sys
import time
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from autoprune.evaluation.workers.pool import (
    LOST_STARTS,
    ClosesAtExit,
    Initialize,
    JudgeJob,
    PendingJob,
    Raised,
    Result,
    check_pool_settings,
    judged_in_worker,
)

if TYPE_CHECKING:
    from autoprune.evaluation.evaluator import Evaluator


class RayActors(ClosesAtExit):
    """Judges in Ray actors with one CPU and one thread each, which start at the first job.

    The evaluator is sent once per machine; each actor has a copy of its tensors. Lost workers, failures and errors are
    those of Processes.
    """

    def __init__(
        self,
        evaluator: "Evaluator",
        *,
        workers: int,
        time_limit_s: float | None = None,
        address: str | None = None,
        initialize: Initialize | None = None,
    ) -> None:
        """Connects to nothing yet.

        Args:
            evaluator: Judges the plans.
            workers: How many actors, at least 1.
            time_limit_s: For one job, in seconds; None is no limit.
            address: Of the cluster, whose token, if it has one, Ray takes from where it always does (RAY_AUTH_TOKEN).
                None uses the Ray that this process is connected to, or starts one here that ends with close().
            initialize: Is called first in each actor.

        Raises:
            ImportError: Ray is not installed.
            ValueError: A setting is out of range.
        """
        check_pool_settings(workers, time_limit_s)
        self.size = workers
        self._time_limit_s = math.inf if time_limit_s is None else time_limit_s
        self._evaluator, self._initialize, self._address = evaluator, initialize, address
        self._ray = _installed_ray()
        self._sent: Any = None  # the evaluator in Ray's object store
        self._calls: dict[Any, _Call] = {}  # an answer to come → who gives it
        self._idle: list[Any] = []  # actors without a call
        self._closed = False
        self._shut_down: weakref.finalize[..., RayActors] | None = None

    def judge(self, jobs: Sequence[JudgeJob]) -> Iterator[tuple[JudgeJob, Result]]:
        """Yields one answer for each job, as they are ready; raises what Processes.judge raises."""
        if self._closed:
            raise RuntimeError("these workers were closed; make a new pool to judge more plans")
        waiting, lost_starts = deque(PendingJob(job) for job in jobs), 0
        try:
            while waiting or any(call.pending for call in self._calls.values()):
                self._hand_out(waiting)
                for call, answer in self._answers():
                    if isinstance(answer, _Lost) and call.pending is None:
                        lost_starts += 1
                        if lost_starts == LOST_STARTS:
                            raise RuntimeError(
                                f"{LOST_STARTS} workers in a row ended before they had judged anything; "
                                f"evaluation.workers=0 judges without workers. {answer.detail}"
                            )
                    elif isinstance(answer, Raised):
                        raise RuntimeError(f"judging a plan failed in a worker:\n{answer.traceback}")
                    elif call.pending is not None:
                        lost_starts = 0
                        result = call.pending.lose(answer.reason) if isinstance(answer, _Lost) else answer
                        if result is None:
                            waiting.appendleft(call.pending)
                        else:
                            yield call.pending.job, result
        finally:
            for answer, call in list(self._calls.items()):
                if call.pending is not None:  # left early: nobody will hear of it
                    self._ray.kill(call.actor)
                    del self._calls[answer]

    def close(self) -> None:
        """Ends the actors, and Ray if it was started here."""
        self._closed = True
        for actor in [*self._idle, *(call.actor for call in self._calls.values())]:
            self._ray.kill(actor)
        self._idle, self._calls, self._sent = [], {}, None
        if self._shut_down is not None:
            self._shut_down()

    def _hand_out(self, waiting: deque[PendingJob]) -> None:
        """Gives idle actors a job, and starts actors where there are fewer than could work."""
        while waiting and self._idle:
            actor, pending = self._idle.pop(), waiting.popleft()
            self._calls[actor.judge.remote(pending.job)] = _Call(actor, pending, time.monotonic() + self._time_limit_s)
        starting = sum(call.pending is None for call in self._calls.values())
        for _ in range(min(self.size - len(self._calls) - len(self._idle), len(waiting) - starting)):
            actor = self._started()
            self._calls[actor.ready.remote()] = _Call(actor, None, math.inf)

    def _started(self) -> Any:
        if self._sent is None:
            quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
            if self._address is not None:
                self._ray.init(address=self._address, **quiet)
            elif not self._ray.is_initialized():
                self._ray.init(address="local", num_cpus=self.size, **quiet)
                self._shut_down = weakref.finalize(self, self._ray.shutdown)
            self._sent = self._ray.put(self._evaluator)
        kind = self._ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Actor)
        return kind.remote(self._sent, self._initialize)

    def _answers(self) -> "list[tuple[_Call, Result | Raised | _Lost | None]]":
        """Waits until there is one, or a job is late. None: the actor is ready."""
        left_s = min(call.deadline for call in self._calls.values()) - time.monotonic()
        calls = list(self._calls)
        first, _ = self._ray.wait(calls, num_returns=1, timeout=None if left_s == math.inf else max(0.0, left_s))
        done, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0)
        late = [key for key in calls if self._calls[key].deadline <= time.monotonic()]
        answers: list[tuple[_Call, Result | Raised | _Lost | None]] = []
        for key in dict.fromkeys([*first, *done, *late]):
            call = self._calls.pop(key)
            try:
                answers.append((call, self._ray.get(key, timeout=0)))
                self._idle.append(call.actor)
            except self._ray.exceptions.GetTimeoutError:
                self._ray.kill(call.actor)
                answers.append((call, _Lost(f"took longer than the time limit of {self._time_limit_s:g} s")))
            except self._ray.exceptions.RayError as error:
                answers.append((call, _Lost("was lost", f"Ray says: {error}")))
        return answers


@dataclass(frozen=True, slots=True)
class _Call:
    """What an actor is at. pending: its job, None while it starts. deadline: on the monotonic clock, in seconds."""

    actor: Any
    pending: PendingJob | None
    deadline: float


@dataclass(frozen=True, slots=True)
class _Lost:
    """The actor is no more."""

    reason: str
    detail: str = ""


class _Actor:
    """A worker; Ray runs its methods in a process of its own."""

    def __init__(self, evaluator: "Evaluator", initialize: Initialize | None) -> None:
        if initialize is not None:
            initialize()
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)
        self._evaluator = evaluator

    def ready(self) -> None:
        return None

    def judge(self, job: JudgeJob) -> Result | Raised:
        return judged_in_worker(job, evaluator=self._evaluator)


def _installed_ray() -> ModuleType:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ImportError("workers on Ray need it installed: pip install 'autoprune[sweep]'") from error
