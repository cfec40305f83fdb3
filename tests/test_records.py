import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoprune.evaluation.curves import single_group_curves
from autoprune.evaluation.outcome import Outcome
from autoprune.records import (
    Ledger,
    Ledgers,
    Recorder,
    describe_budget,
    describe_card,
    describe_curves,
    describe_measured,
    describe_repair,
    describe_structure,
)
from autoprune.runs import RunFolder
from tests.evaluation.tables import Table, by_size, objective_by
from tests.models import random_plan
from tests.tasks import prepared, tiny_task

NAME = "history.jsonl"
ASIDE = f"{NAME}.before-resuming"
KEYS = ("step", "reward")


def line(step: int, reward: float = 0.5, **others: Any) -> dict[str, Any]:
    return {"step": step, "reward": reward, **others}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run")


def ledger(run: RunFolder) -> Ledger:
    return Ledger(run, NAME, keys=KEYS)


def test_lines_are_appended(run: RunFolder) -> None:
    growing = ledger(run)
    for step in range(3):
        assert growing.add(line(step))
        assert run.read_lines(NAME) == [line(i) for i in range(step + 1)]  # each is there at once


def test_a_resumed_run_comes_to_its_lines_again(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    for step in range(3):
        ledger(run).forget("step", None)  # opening it changes nothing
        run.append(NAME, line(step, seconds=step))
    resumed = ledger(run)
    assert [resumed.add(line(step, seconds=99)) for step in range(5)] == [False, False, False, True, True]
    assert [x["seconds"] for x in run.read_lines(NAME)] == [0, 1, 2, 99, 99]  # what is no key may differ
    assert not run.has(ASIDE)
    assert not caplog.records


def test_a_run_that_takes_another_way_loses_no_line(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    for step in range(4):
        run.append(NAME, line(step))
    resumed = ledger(run)
    with caplog.at_level(logging.WARNING):
        assert [resumed.add(x) for x in (line(0), line(1, 0.75), line(2))] == [False, True, True]
    assert run.read_lines(NAME) == [line(0), line(1, 0.75), line(2)]
    assert run.read_lines(ASIDE) == [line(1), line(2), line(3)]
    (warning,) = caplog.messages
    assert "does not repeat history.jsonl: line 2 was {'step': 1, 'reward': 0.5}" in warning
    assert "is {'step': 1, 'reward': 0.75} now" in warning
    assert f"the 3 old lines stand in {run.path / ASIDE}" in warning


def test_what_is_done_will_not_come_again(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    for plan in ("a", "b"):
        for step in range(3):
            run.append(NAME, line(step, plan=plan))
    resumed = Ledger(run, NAME, keys=("plan", "step"))
    resumed.forget("plan", "a")
    assert [resumed.add(line(step, plan="b")) for step in range(4)] == [False, False, False, True]
    assert [(x["plan"], x["step"]) for x in run.read_lines(NAME)] == [("a", 0), ("a", 1), ("a", 2)] + [
        ("b", step) for step in range(4)
    ]
    assert not caplog.records


def test_lines_that_are_done_stay_where_the_others_are_set_aside(run: RunFolder) -> None:
    for plan, step in (("a", 0), ("b", 0), ("b", 1)):
        run.append(NAME, line(step, plan=plan))
    resumed = Ledger(run, NAME, keys=("plan", "step"))
    resumed.forget("plan", "a")
    resumed.add(line(5, plan="b"))
    assert run.read_lines(NAME) == [line(0, plan="a"), line(5, plan="b")]
    assert run.read_lines(ASIDE) == [line(0, plan="b"), line(1, plan="b")]


records = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.1, 0.2])), max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=records, now=records, again=records)
def test_every_line_of_every_attempt_can_be_found(tmp_path: Path, before: Any, now: Any, again: Any) -> None:
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}"
    run, known = RunFolder.create(path), []
    for attempt in (before, now, again):
        growing = ledger(run)
        for step, reward in attempt:
            growing.add(line(step, reward))
        known.append([line(step, reward) for step, reward in attempt])
        told = run.read_lines(NAME)
        assert told[: len(attempt)] == known[-1]  # the newest attempt, and what it had not come to yet
        assert all(any(x in lines for lines in (told, run.read_lines(ASIDE))) for lines in known for x in lines)


def test_numbers_survive_the_file_and_compare_equal(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    """A failed plan's metrics are NaN; rewards have all their digits."""
    ready = prepared(tiny_task())
    plans = list({plan.kept: plan for plan in (random_plan(ready.structure, seed=seed) for seed in range(9))}.values())
    for _ in range(2):
        objective = objective_by(Table(by_size, failing=frozenset({plans[1].kept})), ready)
        history = Ledgers.of(run).history
        for number, outcome in enumerate(objective.evaluate(plans), start=1):
            history.add({"evaluation": number, "phase": "search", **outcome.as_json()})
    assert not caplog.records
    assert len(run.read_lines("history.jsonl")) == len(plans)
    assert run.read_lines("history.jsonl")[1]["kl"] is None


# who writes evaluations down


class Heard:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def log(self, values: dict[str, float], *, axis: str, step: int) -> None:
        assert axis == "evaluation"
        assert all(isinstance(value, float | int) for value in values.values())
        self.steps.append(step)


class Screen:
    def update(self, done: int, *, of: int, phase: str, note: str) -> None:
        assert 1 <= done <= of


def test_a_recorder_tells_the_tracker_of_new_evaluations_only(run: RunFolder) -> None:
    ready = prepared(tiny_task())
    outcomes = ready.objective.uncharged.evaluate([random_plan(ready.structure, seed=seed) for seed in range(6)])
    bests: list[list[float | None]] = []
    for count, told in ((4, [1, 2, 3, 4]), (6, [5, 6])):
        heard, history = Heard(), Ledgers.of(run).history
        recorder = Recorder(history, heard, Screen(), limit=6)  # type: ignore[arg-type]
        for number, outcome in enumerate(outcomes[:count], start=1):
            recorder(outcome, number, "search")
        assert heard.steps == told
        bests.append([x["best"] for x in run.read_lines(NAME)])
    assert bests[1][:4] == bests[0]
    assert bests[1] == [_best(outcomes[: n + 1]) for n in range(6)]


def _best(outcomes: list[Outcome]) -> float | None:
    return max((o.score for o in outcomes if o.feasible and o.whole), default=None)


def test_descriptions_are_json() -> None:
    ready = prepared(tiny_task())
    structure = json.loads(json.dumps(describe_structure(ready)))
    assert [group["name"] for group in structure["groups"]] == list(ready.structure.names)
    assert structure["dense"]["params"] == sum(parameter.numel() for parameter in ready.task.model.parameters())
    budget = json.loads(json.dumps(describe_budget(ready)))
    assert (budget["text"], budget["relative"]) == ("macs:0.5", pytest.approx(0.5, rel=0.01))
    curves = single_group_curves(ready.structure, ready.objective.uncharged.evaluate)
    described = json.loads(json.dumps(describe_curves(ready, curves)))
    assert list(described) == list(ready.structure.names)
    assert all(points[-1]["loss_of_score"] == 0 for points in described.values())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "judging in fp32, 50 samples at a time"),
        (
            {"precision": "bf16", "kendall": 0.963},
            "judging in bf16 (bf16 ranks plans as fp32 does to a Kendall τ of 0.96), 50 samples at a time",
        ),
    ],
)
def test_what_was_measured_is_said_in_a_sentence(changes: dict[str, Any], expected: str) -> None:
    assert describe_measured({"precision": "fp32", "batch_size": 50} | changes) == expected


def test_layers_that_are_too_large_for_least_squares_are_said() -> None:
    record = {"batch_norm": 0.0, "parts": ["least squares"], "dense_kl": -1e-7}
    assert describe_repair(record | {"parts": []}).startswith("repair: none; the repaired dense network is 0 nats")
    assert describe_repair(record).endswith("0 nats from itself")
    one = describe_repair(record | {"too_large": {"conv2": "it would take 3 GiB"}})
    assert one.endswith("; least squares leave conv2 as pruning does: it would take 3 GiB")
    assert "conv2 and 2 more as" in describe_repair(record | {"too_large": dict.fromkeys(("conv2", "a", "b"), "…")})


def test_a_card_says_whether_its_plan_is_worse_than_uniform() -> None:
    bad = describe_card("# A policy\n", {"score": -0.7, "uniform": -0.6, "worse_than_uniform": True})
    assert "score is -0.7" in bad
    assert "worse than the uniform plan" in bad
    good = describe_card(bad, {"score": -0.5, "uniform": -0.6, "worse_than_uniform": False})
    assert good.startswith("# A policy\n\n## Its own plan\n\nIts score is -0.5")
    assert "worse" not in good
    assert good.count("## ") == 1
