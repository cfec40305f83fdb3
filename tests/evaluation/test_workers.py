"""Plans judged in other processes: nothing is lost, nothing is left behind, and a bug is seen."""

import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autoprune.evaluation.outcome import Judged
from autoprune.evaluation.workers import Failure, InProcess, JudgeJob, Pool, Processes, RayActors, processes, ray_actors
from autoprune.evaluation.workers.pool import PendingJob
from tests.commands import SERVER
from tests.evaluation.evaluators import BreaksOnArrival, Holder, Noted, Scripted, expected, same
from tests.evaluation.processes import eventually, running, start_parent
from tests.evaluation.tensors import Tensors

Started = Callable[..., Processes]


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    """Starts pools of a Scripted evaluator, and looks for what they left.

    Their workers are forks of a server that has imported torch; those of other tests here start as they always do.
    """
    monkeypatch.setattr(processes, "START", SERVER)
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


FATES = {"die": "was killed by SIGKILL", "exit": "exited with code 3", "hang": "took longer than the time limit of 2 s"}


@pytest.mark.parametrize("fates", [["hang"], pytest.param(["die", "exit"], marks=pytest.mark.slow)])
def test_every_job_has_one_answer_and_fails_only_after_two_lost_workers(
    started: Started, tmp_path: Path, fates: list[str]
) -> None:
    losing = {(10 + number,): fate for number, fate in enumerate(fates)}
    pool = started({(1,): "die once", (2,): "overflow", (3,): "be slow", **losing}, time_limit_s=2.0)
    assert not multiprocessing.active_children(), "workers start at the first job"
    found = judged(pool, [*jobs(0, 1, *(plan for (plan,) in losing), 2, 3, 4), *jobs(4)])
    expected_failures = {
        kept: Failure(f"the plan that keeps {list(kept)} units: its worker {FATES[fate]}, twice")
        for kept, fate in losing.items()
    }
    expected_failures[2,] = Failure("the plan that keeps [2] units: 7 of its outputs are NaN or infinite")
    assert {job.kept: answer for job, answer in found.items() if isinstance(answer, Failure)} == expected_failures
    assert all(right(job, found[job]) for job in jobs(0, 1, 3, 4))
    assert [Scripted(tmp_path).times(kept) for kept in [(0,), (1,), *losing]] == [1, 2, *(2 for _ in losing)]


def test_workers_stay_for_the_next_call_and_a_bug_is_seen_with_its_traceback(started: Started) -> None:
    pool = started({(1,): "raise", (2,): "be slow", (3,): "be slow"})
    judging: set[float] = set()

    def both_judge() -> bool:
        """The second may still start while the first judges all."""
        judging.update(answer[0].seconds for answer in judged(pool, jobs(2, 3)).values() if isinstance(answer, list))
        return len(judging) == 2

    assert eventually(both_judge)
    workers = {child.pid for child in multiprocessing.active_children()}
    assert judging == workers
    judged(pool, jobs(*range(4, 8)))
    assert {child.pid for child in multiprocessing.active_children()} == workers
    with pytest.raises(RuntimeError, match=r'(?s)evaluators.py", line \d+, in judge.*KeyError: .no such layer.'):
        judged(pool, jobs(0, 1, 2))
    answers = pool.judge(jobs(*range(10, 20)))
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert all(right(job, answer) for job, answer in judged(pool, jobs(20, 21)).items()), (
        "none of the call that was left"
    )
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        judged(pool, jobs(1))


@pytest.mark.slow
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


def test_a_worker_that_dies_between_calls_costs_no_job(started: Started) -> None:
    pool = started({}, workers=1)
    judged(pool, jobs(1))
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    assert eventually(lambda: not running(worker.pid))
    assert all(right(job, answer) for job, answer in judged(pool, jobs(1, 2, 3)).items())


def test_workers_that_cannot_start_are_an_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "LOST_STARTS", 2)  # each takes seconds
    with (
        Processes(Holder(BreaksOnArrival()), workers=1) as pool,
        pytest.raises(RuntimeError, match=r"2 times.*evaluation\.workers=0"),
    ):
        list(pool.judge(jobs(1)))
    assert not multiprocessing.active_children()
    assert "no module of that name" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("part", "what"), [([lambda outputs: outputs], "<lambda>"), ({"lock": threading.Lock()}, "lock")]
)
def test_what_cannot_be_sent_is_named(part: Any, what: str) -> None:
    with pytest.raises(ValueError, match=rf"{what}.*evaluation\.workers=0"):
        Processes(Holder(part), workers=2)


def test_workers_map_one_copy_of_the_tensors_and_use_one_thread(tmp_path: Path) -> None:
    evaluator = Tensors(1_000_000)
    with Processes(evaluator, workers=1, initialize=Noted(tmp_path)) as pool:
        assert all(right(job, answer) for job, answer in judged(pool, jobs(1, 2, 3)).items())
        (worker,) = multiprocessing.active_children()
        mapped = [line for line in Path(f"/proc/{worker.pid}/maps").read_text().splitlines() if "(deleted)" in line]
    assert mapped, "the tensors are in a file without a name"
    assert not evaluator.whole.any(), "what a worker writes is its own"
    assert not evaluator.whole.is_shared()
    assert len(list(tmp_path.glob("initialized-*"))) == 1


def test_workers_end_when_nobody_holds_the_pool(tmp_path: Path) -> None:
    answers = Processes(Scripted(tmp_path), workers=1).judge(jobs(1, 2))
    assert right(*next(answers)), "somebody iterates"
    (worker,) = multiprocessing.active_children()
    pid = worker.pid
    del answers
    assert not running(pid)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, *(pytest.param(n, marks=pytest.mark.slow) for n in (signal.SIGINT, signal.SIGTERM))]
)
def test_workers_end_with_their_parent_even_while_they_hang(tmp_path: Path, number: signal.Signals) -> None:
    parent, workers = start_parent(tmp_path, dict(os.environ))
    both_hang = Scripted(tmp_path)
    assert eventually(lambda: both_hang.times((2,)) == both_hang.times((3,)) == 1)
    assert len(workers) == 2
    assert all(map(running, workers))
    if number == signal.SIGINT:
        os.killpg(parent.pid, number)  # as a terminal does
    else:
        parent.send_signal(number)
    out, err = parent.communicate(timeout=300)
    assert eventually(lambda: not any(map(running, workers)))
    assert parent.returncode == -number
    assert out == ""
    assert err.count("Traceback") == err.count("KeyboardInterrupt\n") == int(number == signal.SIGINT)


def test_two_kinds_of_loss_are_both_told() -> None:
    pending = PendingJob(JudgeJob((3,), 0, 1))
    assert pending.lose("was killed") is None
    assert pending.lose("was late") == Failure(
        "the plan that keeps [3] units: its worker first was killed, then was late"
    )


@pytest.mark.parametrize(("workers", "limit"), [(0, None), (1, 0.0), (1, -1.0), (1, float("nan"))])
def test_settings_that_mean_nothing_are_refused(workers: int, limit: float | None) -> None:
    with pytest.raises(ValueError, match=r"workers must be|time limit must be"):
        Processes(Holder(0), workers=workers, time_limit_s=limit)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
def test_ray_actors_answer_as_processes_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr(ray_actors, "LOST_STARTS", 2)
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
        pytest.raises(RuntimeError, match=r"(?s)2 workers in a row .*no module of that name"),
    ):
        judged(pool, jobs(7))
