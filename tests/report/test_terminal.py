import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from autoprune.report.progress import StageProgress, announced, search_note
from autoprune.report.terminal import print_result
from autoprune.report.wording import GAP
from autoprune.runs import RunFolder
from tests.report.run_folders import write_run


def printed(run: RunFolder, *, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_result(run, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().replace(GAP, " ")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("terminal") / "run", evaluations=40)


def test_the_table_has_both_regimes_costs_and_speedups(run: RunFolder) -> None:
    text = printed(run, width=130)
    (row,) = [line for line in text.splitlines() if line.lstrip().startswith("searched (ppo)")]
    expected = "searched (ppo) ← 76.2 % 92.3 % 35.0 % 53.9 % 592 kB 2.86× 1.81 ms 1.49× 0.297 ms 1.89×"
    assert " ".join(row.split()) == expected
    for header in ("post-training", "recovered", "theoretical", "torch", "ONNX"):
        assert header in text


def test_the_sentence_ends_it(run: RunFolder) -> None:
    text = " ".join(printed(run, width=130).split())
    assert text.endswith(
        "35.0 % of the MACs, 1.9× faster in ONNX Runtime, 92.3 % accuracy after recovery (dense 92.8 %)."
    )


@pytest.mark.parametrize("finished", [True, False])
def test_what_is_not_counted_is_said(*, finished: bool, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", evaluations=40, finished=finished)
    assert "Not in the costs" not in printed(run, width=80)
    sentences = ["multiply–accumulates of fft[0], which runs 2 times, are not counted", "attn is not counted"]
    run.write_json("structure.json", {**run.read_json("structure.json"), "uncounted": sentences})
    text = " ".join(printed(run, width=80).split())
    for sentence in sentences:
        assert f"Not in the costs: {sentence}" in text


@pytest.mark.parametrize("chosen", ["searched", "sensitivity"])
def test_a_table_of_80_columns_cuts_nothing_off(chosen: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", evaluations=40)
    run.write_json("result.json", {**run.read_json("result.json"), "chosen": chosen})
    text = printed(run, width=80)
    assert "…" not in text
    assert f"{chosen} ←" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_brackets_in_a_name_are_no_markup(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", evaluations=40)
    run.write_json("result.json", {**run.read_json("result.json"), "agent": "[red]x[/red]"})
    assert "searched ([red]x[/red])" in printed(run, width=140)


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", evaluations=80, finished=False)
    assert printed(run, width=200).startswith("This run has not finished: 40 evaluations")


def test_progress_outside_a_terminal_is_a_line_now_and_then() -> None:
    file = io.StringIO()
    with StageProgress(console=Console(file=file, width=40)) as progress:
        for i in range(1, 301):
            note = search_note(best=None if i < 5 else -0.25, score=-0.5)
            progress.update(i, of=300, phase="curves" if i < 40 else "search", note=note)
    lines = file.getvalue().splitlines()
    assert len(lines) == 11  # the first, and one each tenth
    assert lines[0].startswith("curves 1/300  best –  last -0.5000")
    assert lines[1].startswith("curves 30/300  best -0.2500")
    assert all(line.endswith(" s left") for line in lines[:-1])
    assert lines[-1] == "search 300/300  best -0.2500  last -0.5000"


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_that_waits_shows_only_what_takes_longer(*, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("autoprune.report.progress.time.monotonic", lambda: now)
    file = io.StringIO()
    with StageProgress(console=Console(file=file, force_terminal=terminal, width=100), after_s=2.0) as progress:
        progress.update(1, of=20, phase="structure", note="")
        assert file.getvalue() == ""
        now = 102.5
        progress.update(4, of=20, phase="structure", note="")
    assert "4/20" in file.getvalue()
    assert "1/20" not in file.getvalue()
    with StageProgress(console=Console(file=(quiet := io.StringIO()), force_terminal=terminal), after_s=2.0) as quick:
        quick.update(20, of=20, phase="structure", note="")
    assert quiet.getvalue().strip("\x1b[?25hl\n") == ""  # but for the cursor


def test_progress_of_a_short_search_is_a_line_each() -> None:
    file = io.StringIO()
    with StageProgress(console=Console(file=file)) as progress:
        for i in range(1, 4):
            progress.update(i, of=3, phase="search", note="")
    assert len(file.getvalue().splitlines()) == 3


def test_progress_in_a_terminal_is_a_bar() -> None:
    file = io.StringIO()
    with StageProgress(console=Console(file=file, force_terminal=True, width=100)) as progress:
        for i in range(1, 21):
            progress.update(i, of=20, phase="search", note=search_note(best=0.5, score=0.25))
    assert "20/20" in file.getvalue()
    assert "best 0.5000  last 0.2500" in file.getvalue()


def test_progress_stops_when_the_search_fails() -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    with pytest.raises(KeyboardInterrupt), StageProgress(console=console):
        raise KeyboardInterrupt
    with StageProgress(console=console):  # the terminal is free again
        pass


def test_what_takes_long_is_said_even_while_nothing_is_reported() -> None:
    file = io.StringIO()
    with announced("loading the task", after_s=0.05, console=Console(file=file)):
        deadline = time.monotonic() + 300
        while not file.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert file.getvalue() == "loading the task …\n"
    with announced("loading the task", after_s=30.0, console=Console(file=(quiet := io.StringIO()))):
        pass
    assert quiet.getvalue() == ""


def test_a_step_without_parts_is_named_and_not_counted() -> None:
    file = io.StringIO()
    with StageProgress(console=Console(file=file)) as progress:
        progress.update(0, of=1, phase="measuring", note="")
        progress.update(1, of=1, phase="measuring", note="")
    assert file.getvalue() == "measuring …\n"
