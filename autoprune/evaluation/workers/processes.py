"""Workers that are processes of this machine: a pool of pebble's, whose workers map one copy of the evaluator."""

import faulthandler
import multiprocessing
import os
import signal
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import reduction, resource_tracker
from typing import TYPE_CHECKING, Any

import torch
from pebble import CONSTS, ProcessExpired, ProcessPool

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

# A worker that is killed while it takes a job leaves the pool's lock taken. Others hold it for milliseconds, so nobody
# needs to wait a minute to see that; parent and workers both import this.
CONSTS.channel_lock_timeout = 10
START = multiprocessing.get_context("spawn")  # a forked OpenMP hangs
POLL_S = 1.0  # how often a pool that answers nothing is asked whether it still runs


class Processes(ClosesAtExit):
    """Judges in processes of one thread each, which start at the first job.

    A job whose worker dies or takes too long is judged once more by another; the second time it is a Failure. Workers
    end with this process, however it ends, and Ctrl-C is left to it. A script that uses this needs
    `if __name__ == "__main__":`, since each worker imports it.

    >>> with Processes(evaluator, workers=2, time_limit_s=60) as pool:
    ...     for job, answer in pool.judge([JudgeJob((8, 64), 0, 10), JudgeJob((4, 64), 0, 10)]):
    ...         print(job.kept, answer)
    """

    def __init__(
        self,
        evaluator: "Evaluator",
        *,
        workers: int,
        time_limit_s: float | None = None,
        initialize: Initialize | None = None,
    ) -> None:
        """Writes the evaluator to a temporary file, which every worker maps into its memory.

        Args:
            evaluator: Judges the plans.
            workers: How many processes, at least 1.
            time_limit_s: For one job, in seconds; None is no limit.
            initialize: Is called first in each worker.

        Raises:
            ValueError: A part of the evaluator cannot be sent to another process, or a setting is out of range.
            OSError: There is no room for the file.
        """
        check_pool_settings(workers, time_limit_s)
        self.size = workers
        self._time_limit_s, self._initialize = time_limit_s, initialize
        self._file = _EvaluatorFile(evaluator)
        self._pools: list[ProcessPool] = []  # the one that runs, or none
        self._closed = False
        self._finalize = weakref.finalize(self, _end, self._pools, self._file)

    def judge(self, jobs: Sequence[JudgeJob]) -> Iterator[tuple[JudgeJob, Result]]:
        """Yields one answer for each job, as they are ready.

        Raises:
            RuntimeError: The evaluator raised something other than FloatingPointError, workers do not start, or the
                pool was closed.
        """
        waiting = deque(PendingJob(job) for job in jobs)  # not handed to the pool
        running: dict[Future[Result | Raised], PendingJob] = {}
        breaks = 0
        try:
            while waiting or running:
                try:
                    self._hand_out(waiting, running)
                    for future in self._completed(running):
                        answer = self._answer(future, running[future])
                        pending = running.pop(future)
                        breaks = 0
                        if answer is None:
                            waiting.append(pending)
                        elif isinstance(answer, Raised):
                            raise RuntimeError(f"judging a plan failed in a worker:\n{answer.traceback}")
                        else:
                            yield pending.job, answer
                except BrokenProcessPool:  # a worker ended while none had a job
                    breaks += 1
                    _stop(self._pools)
                    waiting.extendleft(running.values())
                    running.clear()
                    if breaks == LOST_STARTS:
                        raise RuntimeError(
                            f"workers ended before they had judged anything, {breaks} times in a row. Why stands above "
                            'in what they wrote; a script that starts workers needs `if __name__ == "__main__":`. '
                            "evaluation.workers=0 judges without workers"
                        ) from None
        finally:
            if running:  # left early, by an error or by whoever iterates
                _stop(self._pools)

    def close(self) -> None:
        """Ends the workers, whatever they are doing."""
        self._closed = True
        self._finalize()

    def _hand_out(self, waiting: deque[PendingJob], running: dict[Future[Result | Raised], PendingJob]) -> None:
        pool = self._running_pool()
        while waiting:
            try:
                future = pool.schedule(_judge, (waiting[0].job,), timeout=self._time_limit_s)
            except RuntimeError as error:  # pebble's word for a pool that broke
                raise BrokenProcessPool(str(error)) from error
            running[future] = waiting.popleft()

    def _completed(self, running: dict[Future[Result | Raised], PendingJob]) -> set[Future[Result | Raised]]:
        done, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
        if not done and not self._running_pool().active:
            raise BrokenProcessPool
        return done

    def _answer(self, future: Future[Result | Raised], pending: PendingJob) -> Result | Raised | None:
        """Returns None where the worker was lost and the job may be tried again."""
        try:
            return future.result()
        except ProcessExpired as error:
            code = error.exitcode
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
            return pending.lose(how)
        except TimeoutError:
            return pending.lose(f"took longer than the time limit of {self._time_limit_s:g} s")

    def _running_pool(self) -> ProcessPool:
        if self._closed:
            raise RuntimeError("these workers were closed; make a new pool to judge more plans")
        if not self._pools:
            pool = ProcessPool(
                max_workers=self.size, initializer=_open, initargs=(self._file, self._initialize), context=START
            )
            self._pools.append(pool)
            # Ctrl-C in the terminal never reaches a worker, however early: pebble's threads, and the processes they
            # start, inherit what is blocked here. The tracker is started before, because starting it unblocks SIGINT.
            resource_tracker.ensure_running()
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                _ = pool.active  # starts it
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self._pools[0]


def _stop(pools: list[ProcessPool]) -> None:
    while pools:
        pools[-1].stop()  # type: ignore[no-untyped-call]
        pools[-1].join()
        pools.pop()


def _end(pools: list[ProcessPool], file: "_EvaluatorFile") -> None:
    _stop(pools)
    file.close()


class _EvaluatorFile:
    """An evaluator in a file without a name, of which nothing is left however all processes end."""

    def __init__(self, evaluator: "Evaluator") -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as this object
        try:
            torch.save(evaluator, self._file)
            self._file.flush()
        except (OSError, RuntimeError) as error:
            self.close()
            raise OSError(
                f"there is no room for the evaluator in {tempfile.gettempdir()} ({error}); set TMPDIR to another "
                "folder, or judge in this process with evaluation.workers=0"
            ) from error
        except Exception as error:
            self.close()
            raise ValueError(
                f"a part of the evaluator cannot be sent to another process: {error}. Functions and classes can where "
                "they are defined at the top of a module; evaluation.workers=0 judges in this process and sends nothing"
            ) from error

    def close(self) -> None:
        self._file.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _path_of, (reduction.DupFd(self._file.fileno()),)  # the worker gets the file open


def _path_of(descriptor: Any) -> str:
    return f"/dev/fd/{descriptor.detach()}"


# What follows runs in workers.

_evaluator: "Evaluator"


def _open(path: str, initialize: Initialize | None) -> None:
    """Makes the worker ready. Only this machine's own file is opened, which the parent has just written."""
    global _evaluator
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # pebble's handler waits for Python, and a convolution may be long
    faulthandler.enable()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    if initialize is not None:
        initialize()
    _evaluator = torch.load(path, mmap=True, weights_only=False)


def _judge(job: JudgeJob) -> Result | Raised:
    return judged_in_worker(job, evaluator=_evaluator)


def _end_with_parent() -> None:
    """A job that hangs would outlive a parent that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
