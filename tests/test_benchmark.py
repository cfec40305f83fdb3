"""The benchmark runs, and its table says what was measured."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.benchmark import record, steps
from experiments.benchmark.bench import Bench
from experiments.benchmark.command import main
from experiments.benchmark.figures import FIGURES
from experiments.benchmark.row import Goal, Row, amount, interleaved, ratio
from tests.commands import run_python

ROOT = Path(__file__).parent.parent
NUMBERS = list(range(1, 11))


@pytest.mark.slow
def test_every_figure_is_measured_and_stands_in_the_table(tmp_path: Path) -> None:
    code, arguments = "from experiments.benchmark.command import main; main()", ["--quick", "--repeats", "1", "--out"]
    result = run_python(code, *arguments, str(tmp_path), cwd=tmp_path, env={**os.environ, "WANDB_MODE": "offline"})
    assert result.returncode == 0, result.stderr
    figures = json.loads((tmp_path / "benchmark.json").read_text())["figures"]
    table = (tmp_path / "README.md").read_text()
    assert [figure["number"] for figure in figures] == NUMBERS
    for figure in figures:
        assert {"date", "commit", "machine", "versions", "seed"} <= set(figure)
        assert any("met" in row for row in figure["rows"]), figure["title"]
        for row in figure["rows"]:
            assert row["label"] in table
            assert np.isfinite(row["values"]).all()
            assert min(row["values"]) > 0


def test_a_figure_without_a_task_is_measured_here(tmp_path: Path) -> None:
    rows = steps.growth(Bench(tmp_path, quick=True))
    assert [len(row.values) for row in rows] == [2, 2]
    assert all(value > 0 for row in rows for value in row.values)


def test_figures_are_numbered_and_each_has_a_place_for_its_limit() -> None:
    assert [figure.number for figure in FIGURES] == NUMBERS
    assert [int(number) for number in json.loads((record.HERE / record.LIMITS).read_text())] == NUMBERS
    assert {"<!-- benchmark -->", "<!-- /benchmark -->"} <= set((record.HERE / record.README).read_text().splitlines())


@pytest.mark.parametrize(
    ("goal", "median", "met"),
    [
        (Goal(1.15, 1.03), 1.0, "aim"),
        (Goal(1.15, 1.03), 1.03, "aim"),
        (Goal(1.15, 1.03), 1.1, "reach"),
        (Goal(1.15, 1.03), 1.2, "no"),
        (Goal(4, 8, higher=True), 8.0, "aim"),
        (Goal(4, 8, higher=True), 4.0, "reach"),
        (Goal(4, 8, higher=True), 3.9, "no"),
    ],
)
def test_a_goal_is_met_on_its_own_side(goal: Goal, median: float, met: str) -> None:
    assert amount("it", "×", [median], goal=goal).as_json()["met"] == met


def test_a_goal_is_not_met_without_its_condition() -> None:
    assert amount("it", "×", [0.0], goal=Goal(0.2, 0.07), holds=False).as_json()["met"] == "no"


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=1, max_size=9))
def test_a_ratio_is_taken_repeat_by_repeat(pairs: list[tuple[float, float]]) -> None:
    over, under = zip(*pairs, strict=True)
    row = ratio("it", over, under).as_json()
    low, high = row["quartiles"]
    assert row["values"] == [a / b for a, b in pairs]
    assert min(row["values"]) <= low <= row["median"] <= high <= max(row["values"])
    assert row["of_minima"] == min(over) / min(under)


def test_sides_take_turns_in_both_orders() -> None:
    calls: list[str] = []
    spent = interleaved([lambda: calls.append("a"), lambda: calls.append("b")], repeats=3)
    assert "".join(calls) == "abbaab"
    assert [len(side) for side in spent] == [3, 3]


def test_a_chain_costs_what_its_convolutions_cost() -> None:
    chain = steps.chain(3)
    first, others = 9 * 16 * 3 * 64, 9 * 16 * 64 * 64
    assert steps.chain_macs(3)(chain.units) == first + 3 * others


def test_figures_are_kept_until_they_are_measured_again(tmp_path: Path) -> None:
    for number, value in ((1, 1.0), (2, 2.0), (1, 3.0)):
        found = record.merged(tmp_path, figure(number, value))
    assert [(f["number"], f["rows"][0]["median"]) for f in found["figures"]] == [(1, 3.0), (2, 2.0)]
    assert json.loads((tmp_path / "benchmark.json").read_text()) == found


@pytest.mark.parametrize("other", [{"machine": {"cores": 64}}, {"quick": True}])
def test_figures_of_another_machine_or_size_are_not_mixed_with_these(tmp_path: Path, other: dict[str, Any]) -> None:
    record.merged(tmp_path, figure(1, 1.0) | other)
    assert [f["number"] for f in record.merged(tmp_path, figure(2, 1.0))["figures"]] == [2]


def test_the_table_replaces_what_stands_between_the_markers_only(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- benchmark -->\nold\n<!-- /benchmark -->\nafter\n")
    record.write_table(tmp_path, {"figures": [figure(1, 0.25)]})
    text = readme.read_text()
    assert text.startswith("before\n<!-- benchmark -->\n|")
    assert text.endswith("<!-- /benchmark -->\nafter\n")
    assert "old" not in text
    assert "| | it (a note) | 0.25× | 0.25× | 0.25× – 0.25× | 2 | ≤ 1.15× | ≤ 1.03× | aim |" in text


def test_a_readme_without_markers_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine\n")
    with pytest.raises(ValueError, match=r"lacks the line <!-- benchmark -->"):
        record.write_table(tmp_path, {"figures": [figure(1, 1.0)]})
    assert (tmp_path / "README.md").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["--only", "1,x"], "numbers with commas"), (["--only", "11"], r"no figure \[11\]"), (["--repeats", "0"], "'0'")],
)
def test_an_argument_that_means_nothing_is_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert re.search(complaint, capsys.readouterr().err)


def figure(number: int, value: float) -> dict[str, Any]:
    row = Row("it", "×", (value, value), value, Goal(1.15, 1.03), note="a note").as_json()
    found = {"number": number, "title": f"Figure {number}", "date": "2026-01-01T00:00+00:00", "commit": "abc1234"}
    place = {"processor": "one", "cores": 2, "threads": 2, "system": "Linux"}
    found |= {"machine": place, "versions": {"python": "3.12", "torch": "2"}, "seed": 0, "quick": False}
    return found | {"seconds": 1.0, "rows": [row]}
