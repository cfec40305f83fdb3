"""Workers that are Ray actors, on this machine or on a cluster's."""

import importlib
import os
import sys
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from autoprune.evaluation.workers.crew import Answer, Crew, Gone, Raised, Ready, answer
from autoprune.evaluation.workers.pool import JudgeJob, Result

if TYPE_CHECKING:
    from autoprune.evaluation.evaluator import Evaluator


class RayActors:
    """Judges in `workers` Ray actors with one CPU and one thread each, which start at the first job.

    address: of the Ray cluster, whose token, if it has one, Ray takes from where it always does (RAY_AUTH_TOKEN); None
    starts Ray on this machine and ends it with close(), unless this process uses Ray already. The evaluator is sent
    once per machine; each actor has a copy of its tensors. initialize, time_limit_s and what is raised are as for
    Processes. Raises ImportError where Ray is not installed.
    """

    def __init__(
        self,
        evaluator: "Evaluator",
        *,
        workers: int,
        time_limit_s: float | None = None,
        address: str | None = None,
        initialize: Callable[[], None] | None = None,
    ) -> None:
        self.size = workers
        host = _Ray(evaluator, initialize, address=address, cpus=workers)
        self._crew = Crew(host, size=workers, time_limit_s=time_limit_s)
        self._finalize = weakref.finalize(self, self._crew.close)

    def judge(self, jobs: Sequence[JudgeJob]) -> Iterator[tuple[JudgeJob, Result]]:
        yield from self._crew.judge(jobs)  # a generator of this object, which lives as long as somebody iterates

    def close(self) -> None:
        self._finalize()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Ray:
    """Starts actors; the first start connects to Ray."""

    def __init__(
        self, evaluator: "Evaluator", initialize: Callable[[], None] | None, *, address: str | None, cpus: int
    ) -> None:
        self._ray = _installed_ray()
        self._evaluator, self._initialize = evaluator, initialize
        self._address, self._cpus = address, cpus
        self._sent: Any = None  # the evaluator in Ray's object store
        self._ours = False

    def start(self) -> "_RayWorker":
        if self._sent is None:
            self._connect()
            self._sent = self._ray.put(self._evaluator)
        kind = self._ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Actor)
        return _RayWorker(self._ray, kind.remote(self._sent, self._initialize))

    def _connect(self) -> None:
        if self._address is None and self._ray.is_initialized():
            return
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        local = {"address": "local", "num_cpus": self._cpus, **quiet}
        self._ray.init(**local if self._address is None else {"address": self._address, **quiet})
        self._ours = True

    def answered(self, workers: "Sequence[_RayWorker]", *, timeout_s: float | None) -> "Collection[_RayWorker]":
        pending = {worker.pending: worker for worker in workers if worker.pending is not None}
        done, _ = self._ray.wait(list(pending), num_returns=1, timeout=timeout_s)
        more, _ = self._ray.wait(list(pending), num_returns=len(pending), timeout=0)
        return [pending[which] for which in {*done, *more}]

    def close(self) -> None:
        self._sent = None
        if self._ours:
            self._ray.shutdown()


class _RayWorker:
    """An actor, seen from here. pending: what it will answer next."""

    def __init__(self, ray: ModuleType, actor: Any) -> None:
        self._ray, self._actor = ray, actor
        self.pending: Any = actor.ready.remote()

    def send(self, job: JudgeJob) -> bool:
        self.pending = self._actor.judge.remote(job)
        return True

    def receive(self) -> Answer:
        pending, self.pending = self.pending, None
        try:
            result: Answer = self._ray.get(pending)
        except self._ray.exceptions.RayError as error:
            return Gone("was lost", f"Ray says: {error}")
        return result

    def kill(self) -> None:
        self._ray.kill(self._actor, no_restart=True)


class _Actor:
    """A worker; Ray runs its methods in a process of its own."""

    def __init__(self, evaluator: "Evaluator", initialize: Callable[[], None] | None) -> None:
        os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
        if initialize is not None:
            initialize()
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)
        self._evaluator = evaluator

    def ready(self) -> Ready:
        return Ready()

    def judge(self, job: JudgeJob) -> Result | Raised:
        return answer(job, evaluator=self._evaluator)


def _installed_ray() -> ModuleType:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ImportError("workers on Ray need it installed: pip install 'autoprune[sweep]'") from error
