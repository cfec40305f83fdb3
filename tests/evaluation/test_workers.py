"""Plans judged in other processes: nothing is lost, nothing is left behind, and a bug is seen."""

import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from autoprune.evaluation.outcome import Judged
from autoprune.evaluation.workers import Failure, InProcess, JudgeJob, Pool, Processes, RayActors
from tests.evaluation.evaluators import BreaksOnArrival, Holder, Noted, Scripted, expected, same
from tests.evaluation.tensors import Tensors

Started = Callable[..., Processes]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    """Starts pools of a Scripted evaluator, and looks for what they left."""
    pools: list[Processes] = []

    def start(script: dict[tuple[int, ...], str], *, workers: int = 2, time_limit_s: float | None = None) -> Processes:
        pools.append(Processes(Scripted(tmp_path, script), workers=workers, time_limit_s=time_limit_s))
        return pools[-1]

    yield start
    children = [child.pid for child in multiprocessing.active_children()]
    for pool in pools:
        pool.close()
        pool.close()
    assert not any(map(running, children))
    assert not multiprocessing.active_children()


def jobs(*plans: int) -> list[JudgeJob]:
    return [JudgeJob((plan,), 1, 4) for plan in plans]


def judged(pool: Pool, todo: list[JudgeJob]) -> dict[JudgeJob, list[Judged] | Failure]:
    answers = list(pool.judge(todo))
    assert len(answers) == len(todo)
    return dict(answers)


def right(job: JudgeJob, answer: list[Judged] | Failure) -> bool:
    wanted = [expected(job.kept, batch) for batch in range(job.start, job.stop)]
    return isinstance(answer, list) and all(same(a, b) for a, b in zip(answer, wanted, strict=True))


def running(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def soon(condition: Callable[[], bool], *, within_s: float = 10.0) -> bool:
    end = time.monotonic() + within_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_in_process_every_job_is_judged_in_order_as_it_is_asked_for(tmp_path: Path) -> None:
    evaluator = Scripted(tmp_path, {(2,): "overflow", (3,): "raise"})
    answers = InProcess(evaluator).judge(jobs(1, 2, 3))
    job, answer = next(answers)
    assert right(job, answer)
    assert evaluator.times((2,)) == 0
    job, answer = next(answers)
    assert answer == Failure("the plan that keeps [2] units: 7 of its outputs are NaN or infinite")
    with pytest.raises(KeyError, match="no such layer"):
        next(answers)


def test_processes_answer_every_job_and_share_the_work(started: Started) -> None:
    pool = started(dict.fromkeys([(1,), (2,)], "be slow"))
    assert not multiprocessing.active_children()
    found = judged(pool, jobs(*range(20)))
    assert all(right(job, answer) for job, answer in found.items())
    assert len({answer[0].seconds for answer in found.values() if isinstance(answer, list)} - {os.getpid()}) == 2
    workers = {child.pid for child in multiprocessing.active_children()}
    judged(pool, jobs(*range(4)))
    assert {child.pid for child in multiprocessing.active_children()} == workers, "the workers stay for the next call"


def test_a_job_that_loses_its_worker_once_is_judged_again_and_twice_has_failed(started: Started) -> None:
    pool = started({(1,): "die once", (2,): "die", (3,): "exit", (4,): "overflow"})
    found = judged(pool, jobs(0, 1, 2, 3, 4, 5))
    assert all(right(job, found[job]) for job in jobs(0, 1, 5))
    assert [found[job] for job in jobs(2, 3, 4)] == [
        Failure("the plan that keeps [2] units: its worker was killed by SIGKILL, twice"),
        Failure("the plan that keeps [3] units: its worker exited with code 3, twice"),
        Failure("the plan that keeps [4] units: 7 of its outputs are NaN or infinite"),
    ]


def test_a_job_that_hangs_has_failed_after_twice_the_limit(started: Started, tmp_path: Path) -> None:
    pool = started({(1,): "hang", (2,): "be slow"}, time_limit_s=1.0)
    judged(pool, jobs(0, 5))  # both have started
    begun = time.monotonic()
    found = judged(pool, jobs(1, 2, 3, 4))
    assert 2.0 <= time.monotonic() - begun < 8.0
    assert found.pop(jobs(1)[0]) == Failure(
        "the plan that keeps [1] units: its worker took longer than the time limit of 1 s, twice"
    )
    assert all(right(job, answer) for job, answer in found.items())
    assert Scripted(tmp_path).times((1,)) == 2


def test_a_bug_in_the_evaluator_is_seen_with_its_traceback(started: Started) -> None:
    pool = started({(1,): "raise"}, workers=1)
    with pytest.raises(RuntimeError, match=r'(?s)evaluators.py", line \d+, in judge.*KeyError: .no such layer.'):
        judged(pool, jobs(0, 1, 2))
    assert all(right(job, answer) for job, answer in judged(pool, jobs(0, 2)).items())


def test_a_call_that_was_left_early_does_not_reach_the_next(started: Started) -> None:
    pool = started({(1,): "be slow", (2,): "be slow"})
    answers = pool.judge(jobs(*range(10)))
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert all(right(job, answer) for job, answer in judged(pool, jobs(*range(20, 30))).items())


def test_workers_killed_from_outside_lose_no_job(started: Started) -> None:
    pool = started({})
    rng, kills = random.Random(0), 0
    found = {}
    for number, (job, answer) in enumerate(pool.judge(jobs(*range(50)))):
        found[job] = answer
        if number % 15 == 10:
            victim = rng.choice(multiprocessing.active_children())
            assert victim.pid is not None
            os.kill(victim.pid, signal.SIGKILL)
            kills += 1
    assert kills == 3
    assert len(found) == 50
    assert all(right(job, answer) for job, answer in found.items())


def test_a_worker_that_cannot_start_is_an_error_with_what_it_wrote() -> None:
    with (
        Processes(Holder(BreaksOnArrival()), workers=2) as pool,
        pytest.raises(RuntimeError, match=r"(?s)3 workers in a row .* exited with code 1; .*no module of that name"),
    ):
        list(pool.judge(jobs(1)))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("parts", "where"),
    [
        ({"metric": [lambda outputs: outputs]}, r"evaluator\.parts\['metric'\]\[0\] = <function .*<lambda>"),
        (Holder(threading.Lock()), r"evaluator\.parts\.parts = <unlocked"),
        ((torch.ones(2, requires_grad=True) * 2,), r"evaluator\.parts\[0\] = tensor"),
    ],
)
def test_what_cannot_be_sent_is_named(parts: Any, where: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s){where}.*cannot be sent .*evaluation\.workers=0"):
        Processes(Holder(parts), workers=2)


def test_tensors_are_the_same_memory_in_every_process(tmp_path: Path) -> None:
    evaluator = Tensors(1_000_000)
    with Processes(evaluator, workers=2, initialize=Noted(tmp_path)) as pool:
        assert all(right(job, answer) for job, answer in judged(pool, jobs(1, 2, 3)).items())
    assert evaluator.whole.is_shared()
    assert evaluator.whole[2:5].tolist() == [1, 1, 1], "written by workers of one thread, seen here, through a view"
    assert evaluator.parameter.is_shared()
    assert evaluator.parameter.max() > 1
    assert 1 <= len(list(tmp_path.glob("initialized-*"))) <= 2


def test_more_tensors_than_files_may_be_open_are_refused() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        with pytest.raises(OSError, match=r"has 100 tensors, .* may open 300; .*ulimit -n 456"):
            Processes(Holder([torch.ones(n + 1) for n in range(100)]), workers=2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_tensors_that_do_not_fit_into_shared_memory_are_refused() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(OSError, match=r"do not fit into shared memory, 8 MB .*evaluation\.workers=0"):
            Processes(Holder(torch.zeros(2_000_000)), workers=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        for left in Path("/dev/shm").glob(f"torch_{os.getpid()}_*"):  # torch leaves the name of what it could not make
            left.unlink()


def test_workers_end_when_nobody_holds_the_pool(tmp_path: Path) -> None:
    answers = Processes(Scripted(tmp_path), workers=1).judge(jobs(1, 2))
    assert right(*next(answers)), "somebody iterates"
    (worker,) = multiprocessing.active_children()
    pid = worker.pid
    del answers
    assert not running(pid)
    assert not multiprocessing.active_children()


SCRIPT = """
import multiprocessing, sys
from pathlib import Path
from autoprune.evaluation.workers import Job, Processes
from tests.evaluation.evaluators import Scripted

class Local(Scripted):  # known to workers as a class of their main module
    pass

if __name__ == "__main__":
    with Processes(Local(Path(sys.argv[1]), {(1,): "talk", (2,): "hang", (3,): "hang"}), workers=2) as pool:
        for job, answer in pool.judge([Job((n,), 0, 1) for n in range(4)]):
            if job.kept == (1,):
                print(*[child.pid for child in multiprocessing.active_children()], flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent_even_while_they_hang(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    both_hang = Scripted(tmp_path)
    assert soon(lambda: both_hang.times((2,)) == both_hang.times((3,)) == 1)
    assert len(workers) == 2
    assert all(map(running, workers))
    if number == signal.SIGINT:
        os.killpg(parent.pid, number)  # as a terminal does
    else:
        parent.send_signal(number)
    out, err = parent.communicate(timeout=120)
    assert soon(lambda: not any(map(running, workers)))
    assert parent.returncode == -number
    assert out == ""
    assert err.count("Traceback") == err.count("KeyboardInterrupt\n") == int(number == signal.SIGINT)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
def test_ray_actors_answer_as_processes_do(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    script = {(1,): "die once", (2,): "hang", (3,): "overflow", (4,): "exit", (6,): "raise"}
    with RayActors(Scripted(tmp_path, script), workers=2, time_limit_s=3.0) as pool:
        found = judged(pool, jobs(0, 1, 2, 3, 4, 5))
        assert all(right(job, found[job]) for job in jobs(0, 1, 5))
        assert [found[job] for job in jobs(2, 3, 4)] == [
            Failure("the plan that keeps [2] units: its worker took longer than the time limit of 3 s, twice"),
            Failure("the plan that keeps [3] units: 7 of its outputs are NaN or infinite"),
            Failure("the plan that keeps [4] units: its worker was lost, twice"),
        ]
        with pytest.raises(RuntimeError, match=r"(?s)Traceback.*KeyError: .no such layer."):
            judged(pool, jobs(6))
    with (
        RayActors(Holder(BreaksOnArrival()), workers=1) as pool,
        pytest.raises(RuntimeError, match=r"(?s)3 workers in a row .*no module of that name"),
    ):
        judged(pool, jobs(7))
