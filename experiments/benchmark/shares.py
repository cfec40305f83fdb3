"""Figures 8 and 10: whose wall time a search is: the agent's, and that of all that is written down."""

import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.live import Live

from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.evaluation.store import Context, EvaluationStore
from autoprune.pipeline import Job
from autoprune.records import Ledger, Ledgers, Recorder
from autoprune.report.progress import StageProgress
from autoprune.runs import RunFolder
from autoprune.seeding import numpy_rng
from autoprune.tracking import TrackedRun, WandbTracker
from experiments.benchmark.bench import Bench, Ready
from experiments.benchmark.row import Goal, Row, amount
from experiments.configuration import composed, instantiate_part

TASK = "fashion_resnet20"
METHODS: Mapping[str, tuple[tuple[type, str], ...]] = {  # whose time figure 10 adds up
    "all": ((Recorder, "__call__"), (Job, "_agent_metrics")),
    "files": ((Ledger, "add"),),
    "tracker": ((WandbTracker, "log"),),
    "bar": ((StageProgress, "update"),),
    "drawing": ((Live, "refresh"),),
    "store": ((Context, "put"), (Context, "get")),
}


def agent(bench: Bench) -> list[Row]:
    """Figure 8: AMC's agent (layer-wise DDPG) after a short warm-up: all that is not evaluation, steps included."""
    ready, idle, episodes = bench.ready(TASK), bench.size(20, 4), bench.size(120, 12)
    raced, whole = list[float](), list[float]()
    for repeat in range(bench.times(3)):
        for race, column in ((True, raced), (False, whole)):
            column.append(_agent_share(ready, bench.scratch, seed=repeat, race=race, idle=idle, episodes=episodes))
    note = f"episodes {idle + 1} to {episodes}, seeds from 0"
    return [
        amount("layer-wise DDPG, its steps included, plans raced", "%", raced, goal=Goal(25, 8), note=note),
        amount("… every plan judged on all samples", "%", whole, note=note),
    ]


def _agent_share(ready: Ready, scratch: Path, *, seed: int, race: bool, idle: int, episodes: int) -> float:
    settings = composed("agent=amc", f"agent.agent.experience.warm_up_episodes={idle}")
    problem = ready.afresh(**({} if race else {"race": None})).limited(episodes, seed=seed, folder=scratch)
    spans: list[tuple[float, float]] = []
    evaluate = problem.objective.evaluate

    def timed(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return evaluate(*arguments, **options)
        finally:
            spans.append((start, time.perf_counter()))

    problem.objective.__dict__["evaluate"] = timed
    with contextlib.suppress(EvaluationsSpent):
        instantiate_part(settings, "agent")(problem, rng=numpy_rng(seed, "search"))
    learned = spans[idle:]  # the first update comes before the first of these
    total = spans[-1][1] - spans[idle - 1][1]
    return 100 * (1 - sum(end - start for start, end in learned) / total)


def writing(bench: Bench) -> list[Row]:
    """Figure 10: the search stage of the default job, tracked by W&B offline, with a progress bar that nobody sees."""
    shares: dict[str, list[float]] = {}
    for repeat in range(bench.times(3)):
        for name, share in _writing_shares(bench, repeat).items():
            shares.setdefault(name, []).append(share)
    told = ("files", "tracker", "bar")
    said = ", ".join(f"{name} {sorted(shares[name])[len(shares[name]) // 2]:.2f} %" for name in told)
    return [
        amount(
            "writing evaluations and metrics down, W&B, progress bar", "%", shares["all"], goal=Goal(2, 0.5), note=said
        ),
        amount(
            "… drawing the bar, in a thread of its own", "%", shares["drawing"], note="waiting for the others included"
        ),
        amount("… the evaluation store", "%", shares["store"], note="beside it, not in it"),
    ]


def _writing_shares(bench: Bench, repeat: int) -> dict[str, float]:
    evaluations = bench.size(300, 60)
    folder = bench.scratch / f"run{repeat}"
    settings = composed("tracking.mode=offline", "recover=none", f"seed={repeat}")
    run = RunFolder.create(folder)
    tracked = TrackedRun(folder, folder.name, group=TASK, job_type="benchmark", config={})
    tracker = instantiate_part(settings, "tracking")(tracked)
    store = EvaluationStore(folder / "evaluations.sqlite").within({"repeat": repeat})
    problem = bench.ready(TASK).afresh(store=store)
    job = Job(
        problem,
        search=instantiate_part(settings, "agent"),
        recover=instantiate_part(settings, "recover"),
        agent="ppo",
        evaluations=evaluations,
        seed=repeat,
        run=run,
        ledgers=Ledgers.of(run),
        tracker=tracker,
    )
    try:
        with contextlib.ExitStack() as stack:
            clocks = {name: stack.enter_context(_timed(*which)) for name, which in METHODS.items()}
            stack.enter_context(_unseen_terminal())
            start = time.perf_counter()
            job.search_plan()
            total = time.perf_counter() - start
    finally:
        tracker.close()
        store.store.close()
    return {name: 100 * clock.seconds / total for name, clock in clocks.items()}


@dataclass(slots=True)
class _Clock:
    """Seconds inside some methods, as they add up."""

    seconds: float = 0.0

    def around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


@contextlib.contextmanager
def _timed(*methods: tuple[type, str]) -> Iterator[_Clock]:
    """The methods are timed while the context is open."""
    clock, before = _Clock(), [(owner, name, getattr(owner, name)) for owner, name in methods]
    for owner, name, method in before:
        setattr(owner, name, clock.around(method))
    try:
        yield clock
    finally:
        for owner, name, method in before:
            setattr(owner, name, method)


@contextlib.contextmanager
def _unseen_terminal() -> Iterator[None]:
    """What is printed is drawn as in a terminal, and seen by nobody."""
    asked: Mapping[str, str] = {"FORCE_COLOR": "1"}
    before = {name: os.environ.get(name) for name in asked}
    os.environ.update(asked)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
