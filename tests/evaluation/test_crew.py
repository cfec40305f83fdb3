"""Whatever becomes of the workers, every job gets one answer, and only those that lost two workers fail."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.evaluation.workers.crew import LOSSES, Answer, Crew, Gone, Raised, Ready
from autoprune.evaluation.workers.pool import Failure, JudgeJob
from tests.evaluation.evaluators import expected, same

JOBS = [JudgeJob((n,), 0, 1) for n in range(8)]
FATES = st.sampled_from(["answer"] * 4 + ["die", "hang", "raise"])


@dataclass(eq=False)
class Puppet:
    """A worker in this process that does what the host's script says next."""

    host: "Theatre"
    answer: Answer | None = field(default_factory=Ready)
    alive: bool = True

    def send(self, job: JudgeJob) -> bool:
        assert self.alive
        assert self.answer is None, "a second job for a worker that has one"
        fate = self.host.fates.pop(0) if self.host.fates else "answer"
        self.host.given.append((job, fate))
        if fate == "leave":
            self.answer = Gone("was called away")
            return False
        answers = {"die": Gone("was killed"), "raise": Raised("a bug"), "hang": None}
        self.answer = answers[fate] if fate in answers else [expected(job.kept, 0)]
        return True

    def receive(self) -> Answer:
        answer, self.answer = self.answer, None
        assert answer is not None
        return answer

    def kill(self) -> None:
        self.alive = False


@dataclass(eq=False)
class Theatre:
    """Where puppets work. fates: of the jobs, in the order in which they are handed out."""

    fates: list[str]
    opening: Answer = field(default_factory=Ready)
    workers: list[Puppet] = field(default_factory=list)
    given: list[tuple[JudgeJob, str]] = field(default_factory=list)

    def start(self) -> Puppet:
        self.workers.append(Puppet(self, self.opening))
        return self.workers[-1]

    def answered(self, workers: Sequence[Puppet], *, timeout_s: float | None) -> list[Puppet]:
        assert all(worker.alive for worker in workers)
        ready = [worker for worker in workers if worker.answer is not None]
        assert ready or timeout_s is not None, "this would wait for ever"
        return ready

    def close(self) -> None:
        assert not any(worker.alive for worker in self.workers)


@given(fates=st.lists(FATES.filter(lambda fate: fate != "raise"), max_size=20), size=st.integers(1, 5))
def test_every_job_has_one_answer_and_fails_only_after_two_lost_workers(fates: list[str], size: int) -> None:
    host = Theatre(list(fates))
    crew = Crew(host, size=size, time_limit_s=1e-9)
    answers = list(crew.judge(JOBS))
    crew.close()
    assert sorted(job.kept for job, _ in answers) == [job.kept for job in JOBS]
    for job, answer in answers:
        lost = [fate for given_job, fate in host.given if given_job == job and fate != "answer"]
        if isinstance(answer, Failure):
            assert len(lost) == 2
            assert str(list(job.kept)) in answer.reason
        else:
            assert len(lost) < 2
            assert same(answer[0], expected(job.kept, 0))


@given(fates=st.lists(FATES, max_size=20), size=st.integers(1, 4), taken=st.integers(0, 8))
def test_what_was_left_early_does_not_reach_the_next_call(fates: list[str], size: int, taken: int) -> None:
    host = Theatre(list(fates))
    crew = Crew(host, size=size, time_limit_s=1e-9)
    early = crew.judge(JOBS)
    with suppress(RuntimeError, StopIteration):
        for _ in range(taken):
            next(early)
    early.close()
    host.fates = [fate for fate in host.fates if fate != "raise"]
    later = [JudgeJob((n + 100,), 0, 1) for n in range(8)]
    assert sorted(job.kept for job, _ in crew.judge(later)) == [job.kept for job in later]
    crew.close()


def test_the_same_job_twice_is_two_jobs() -> None:
    assert [job for job, _ in Crew(Theatre([]), size=2, time_limit_s=None).judge([JOBS[0], JOBS[0]])] == [JOBS[0]] * 2


def test_jobs_go_out_in_order_and_a_lost_one_goes_first() -> None:
    host = Theatre(["answer", "die"])
    list(Crew(host, size=1, time_limit_s=None).judge(JOBS))
    assert [job.kept[0] for job, _ in host.given] == [0, 1, 1, 2, 3, 4, 5, 6, 7]


def test_no_more_workers_start_than_there_are_jobs() -> None:
    host = Theatre([])
    list(Crew(host, size=5, time_limit_s=None).judge(JOBS[:2]))
    assert len(host.workers) == 2


def test_a_worker_that_went_between_jobs_does_not_count_against_the_job() -> None:
    host = Theatre(["leave", "die"])
    assert isinstance(dict(Crew(host, size=1, time_limit_s=None).judge(JOBS[:1]))[JOBS[0]], list)


def test_workers_that_never_start_end_the_call() -> None:
    host = Theatre([], opening=Gone("exited with code 1", "It wrote:\nImportError"))
    with pytest.raises(
        RuntimeError, match=r"3 workers in a row .* exited with code 1; evaluation.workers=0(.|\n)*Import"
    ):
        list(Crew(host, size=2, time_limit_s=None).judge(JOBS))
    assert LOSSES <= len(host.workers) <= LOSSES + 1
    assert not any(worker.alive for worker in host.workers)


def test_two_kinds_of_loss_are_both_told() -> None:
    ((_, answer),) = Crew(Theatre(["die", "hang"]), size=1, time_limit_s=1e-9).judge(JOBS[3:4])
    assert isinstance(answer, Failure)
    assert answer.reason == (
        "the plan that keeps [3] units: its worker first was killed, then took longer than the time limit of 1e-09 s"
    )


def test_answers_that_are_there_come_before_the_bug() -> None:
    crew = Crew(Theatre(["answer", "answer", "raise"]), size=1, time_limit_s=None)
    found = []
    with pytest.raises(RuntimeError, match="a bug"):
        found.extend(job for job, _ in crew.judge(JOBS))
    assert [job.kept[0] for job, _ in crew.judge(JOBS[:3])] == [0, 1, 2]


def test_a_second_call_ends_the_first() -> None:
    crew = Crew(Theatre([]), size=1, time_limit_s=None)
    first = crew.judge(JOBS)
    next(first)
    second = crew.judge(JOBS)
    next(second)
    with pytest.raises(RuntimeError, match="called again"):
        list(first)
    assert len(list(second)) == len(JOBS) - 1


@pytest.mark.parametrize(("size", "limit"), [(0, None), (1, 0.0), (1, -1.0), (1, float("nan"))])
def test_settings_that_mean_nothing_are_refused(size: int, limit: float | None) -> None:
    with pytest.raises(ValueError, match=r"workers must be|time limit must be"):
        Crew(Theatre([]), size=size, time_limit_s=limit)


def test_a_closed_crew_judges_nothing() -> None:
    crew = Crew(Theatre([]), size=1, time_limit_s=None)
    crew.close()
    crew.close()
    with pytest.raises(RuntimeError, match="closed"):
        list(crew.judge(JOBS))
