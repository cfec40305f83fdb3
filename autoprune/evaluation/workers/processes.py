"""Workers that are processes of this machine; they see the evaluator's tensors in shared memory."""

import contextlib
import faulthandler
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from multiprocessing import connection, reduction, resource_tracker
from multiprocessing.connection import Connection
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from autoprune.evaluation.workers.crew import Answer, Crew, Gone, Ready, answer
from autoprune.evaluation.workers.pool import JudgeJob, Result
from autoprune.evaluation.workers.shared import share

if TYPE_CHECKING:
    from autoprune.evaluation.evaluator import Evaluator

Initialize = Callable[[], None]

TAIL = 4000  # characters of a lost worker's output that are shown
SILENT = (
    'Its reasons may stand above. A script that starts workers needs `if __name__ == "__main__":`: each imports it.'
)


class Processes:
    """Judges in `workers` processes of one thread each, which start at the first job.

    The evaluator's tensors are moved to shared memory; everything else of it is copied into each process. initialize
    is called first in each. What workers write is shown only where one does not start. Workers end with this process,
    however it ends, and Ctrl-C is left to it.

    A job whose worker dies or takes longer than time_limit_s (None: no limit) is judged once more; the second time, it
    is a Failure. FloatingPointError is the plan's Failure at once, any other exception a RuntimeError here. Raises
    ValueError where the evaluator cannot be sent to another process.

    A script that uses this needs `if __name__ == "__main__":`, since each worker imports it.
    """

    def __init__(
        self,
        evaluator: "Evaluator",
        *,
        workers: int,
        time_limit_s: float | None = None,
        initialize: Initialize | None = None,
    ) -> None:
        self.size = workers
        self._crew = Crew(_Spawning(evaluator, initialize), size=workers, time_limit_s=time_limit_s)
        share(evaluator, name="evaluator")
        share(initialize, name="initialize")
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


class _Spawning:
    """Starts processes from nothing: a forked OpenMP hangs."""

    def __init__(self, evaluator: "Evaluator", initialize: Initialize | None) -> None:
        self._evaluator, self._initialize = evaluator, initialize
        self._context = multiprocessing.get_context("spawn")

    def start(self) -> "_Process":
        ours, theirs = self._context.Pipe()
        output = _File(tempfile.TemporaryFile())  # noqa: SIM115  closed with the worker
        with tempfile.TemporaryFile() as content:
            parcel = _Parcel(self._evaluator, _File(content))
            process = self._context.Process(target=_work, args=(theirs, output, self._initialize, parcel), daemon=True)
            _start_without_interrupts(process)
        theirs.close()  # or its end could not be told from silence
        return _Process(process, ours, output)

    def answered(self, workers: "Sequence[_Process]", *, timeout_s: float | None) -> "Collection[_Process]":
        by_connection = {worker.connection: worker for worker in workers}
        ready = connection.wait(list(by_connection), timeout_s)
        return [by_connection[which] for which in ready if isinstance(which, Connection)]

    def close(self) -> None:
        """Nothing is left."""


def _start_without_interrupts(process: multiprocessing.process.BaseProcess) -> None:
    """Ctrl-C in the terminal never reaches this process, however early: it inherits what is blocked here."""
    resource_tracker.ensure_running()  # start() does, and would let SIGINT through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Process:
    """A worker, seen from here."""

    def __init__(
        self, process: multiprocessing.process.BaseProcess, link: "Connection[JudgeJob, Answer]", output: "_File"
    ) -> None:
        self._process, self._output, self._ended = process, output, False
        self.connection = link

    def send(self, job: JudgeJob) -> bool:
        try:
            self.connection.send(job)
        except OSError:
            return False
        return True

    def receive(self) -> Answer:
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return Gone(self._end(), self._output.tail() or SILENT)

    def kill(self) -> None:
        if not self._ended:
            self._ended = True
            self._process.kill()
            self._process.join()
            self._process.close()
            self.connection.close()
            self._output.file.close()

    def _end(self) -> str:
        """How it ended. It has closed its end of the connection, so it has ended or is about to."""
        self._process.join(timeout=5)
        code = self._process.exitcode
        if code is None:
            return "hung up"
        if code >= 0:
            return f"exited with code {code}"
        return f"was killed by {signal.Signals(-code).name}"


class _File:
    """A file without a name that the worker gets open."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def tail(self) -> str:
        self.file.seek(0)
        written = self.file.read().decode(errors="replace").strip()
        return written and f"It wrote:\n{written[-TAIL:]}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (reduction.DupFd(self.file.fileno()),)


def _opened(descriptor: Any) -> _File:
    return _File(os.fdopen(descriptor.detach(), "w+b"))


class _Parcel:
    """An evaluator on its way to a process that opens it when it is ready to, so that sending it never waits."""

    def __init__(self, evaluator: "Evaluator | None", content: _File) -> None:
        self._evaluator, self._content = evaluator, content

    def __reduce__(self) -> tuple[Any, ...]:
        reduction.dump(
            self._evaluator, self._content.file
        )  # its tensors' descriptors are for the process being started
        self._content.file.flush()
        return type(self), (None, self._content)

    def open(self) -> "Evaluator":
        with self._content.file as file:
            file.seek(0)
            evaluator: Evaluator = pickle.load(file)
        return evaluator


def _work(link: "Connection[Answer, JudgeJob]", output: _File, initialize: Initialize | None, parcel: _Parcel) -> None:
    """A worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in (1, 2):
        os.dup2(output.file.fileno(), stream)
    faulthandler.enable()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # for a torch that is imported later
    if initialize is not None:
        initialize()
    evaluator = parcel.open()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    link.send(Ready())
    with contextlib.suppress(EOFError, BrokenPipeError):  # nobody is there any more
        while True:
            link.send(answer(link.recv(), evaluator=evaluator))


def _end_with_parent() -> None:
    """A job that hangs would outlive a parent that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
