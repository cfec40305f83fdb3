"""The command line as a person uses it: real processes, right and wrong arguments, and Ctrl-C."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from autoprune.cli import JOBS, READERS, conf_dir, main
from tests.commands import MY_TASK, run, start

QUICK = ["task=digits", "threads=1", "tracking=none", "recover.steps=5"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune"], "does not know 'prune'"),
        (["serach"], "did you mean search?"),
        (["show", "nowhere"], "not a run folder"),
        pytest.param(
            ["search", *QUICK, "task.keep=[conv9]"],
            "task.keep names ['conv9'], which the model lacks",
            marks=pytest.mark.slow,
        ),
        pytest.param(["search", *QUICK, "budget=macs:0.0001"], "feasible budgets lie between", marks=pytest.mark.slow),
        (["search", *QUICK, "budget=half"], "must be written cost:amount"),
        pytest.param(
            ["search", *QUICK, "agent=sensitivity", "evaluations=10"],
            "the sensitivity plan needs",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["search", *QUICK, "agent=ppo", "policy=shipped"],
            "policy=shipped is where agent=transferable goes on",
            marks=pytest.mark.slow,
        ),
        (["search", *QUICK, "agent=sa"], "agent=sa is no file of conf/agent; did you mean sac?"),
        pytest.param(
            ["search", *QUICK, "agent=ppo", "+agent.env.levels=4"],
            "agent.env.levels=4 are densities of one group at a time",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["search", "task=digits", "tracking.mode=online"], "tracking.mode=offline", marks=pytest.mark.slow
        ),
        pytest.param(
            ["search", *QUICK, "data=fashion_subset"], "the example input has (1, 8, 8)", marks=pytest.mark.slow
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_wrong_arguments_get_one_clear_message(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_and_version(tmp_path: Path) -> None:
    assert "autoprune search" in run(cwd=tmp_path).stdout
    assert run("search", "--version", cwd=tmp_path, fresh=True).stdout.startswith("autoprune 0.")


def test_a_reader_who_has_read_enough_gets_no_traceback() -> None:
    """`autoprune … | head`, with a pipe whose reading end is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", "from autoprune.cli import main; main()", "--help"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", None])
def test_a_terminal_of_another_alphabet_or_none_ends_no_command(
    encoding: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    stream = None if encoding is None else io.TextIOWrapper(written, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "argv", ["autoprune", "--help"])
    main()
    print("a Kendall τ of 0.9 …")
    sys.stdout.flush()
    assert encoding is None or b"usage: autoprune" in written.getvalue()
    assert encoding is None or b"a Kendall ? of 0.9 ?" in written.getvalue()


def said(*arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command prints, in this process."""
    monkeypatch.setattr(sys, "argv", ["autoprune", *arguments])
    main()
    return capsys.readouterr().out


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("help_", ["--help", "-h"])
def test_every_command_answers_help(
    command: str, help_: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"usage: autoprune {command}" in said(command, help_, monkeypatch=monkeypatch, capsys=capsys)
    assert f"autoprune {command}" in said(help_, monkeypatch=monkeypatch, capsys=capsys)
    assert said(command, "--version", monkeypatch=monkeypatch, capsys=capsys).startswith("autoprune 0.")


@pytest.mark.parametrize("command", JOBS)
def test_help_lists_choices_and_explains_settings(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the groups of the command's own file, and of the file that it is made of; of no others."""
    text = said(command, "seed=1", "--help", monkeypatch=monkeypatch, capsys=capsys)
    groups, settings = text.partition("Groups, ")[2].split("\n\nSettings:\n\n")
    own = yaml.safe_load((conf_dir() / f"{JOBS[command].name}.yaml").read_text())
    assert f"usage: autoprune {command} " in text
    assert all(f"\n{key}:" in f"\n{settings}" for key in own if key not in ("defaults", "hydra"))
    assert "\nhydra:" not in settings
    listed = [line.split()[0] for line in groups.splitlines() if line.startswith("  ") and line[2] != " "]
    assert all((conf_dir() / name).is_dir() for name in listed)
    assert all(path.stem in groups for name in listed for path in (conf_dir() / name).glob("*.yaml"))
    assert ("agent" in listed) == (command in ("search", "apply", "train"))


@pytest.mark.parametrize(
    ("line", "offered"),
    [("autoprune ", {*JOBS, *READERS}), ("autoprune s", {"search", "show"}), ("autoprune show r", set())],
)
def test_commands_are_completed(
    line: str, offered: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    assert set(said("-sc", "query=bash", monkeypatch=monkeypatch, capsys=capsys).split()) == offered


def test_settings_are_completed_behind_their_command(tmp_path: Path) -> None:
    def completed(line: str) -> list[str]:
        return run("-sc", "query=bash", cwd=tmp_path, env=os.environ | {"COMP_LINE": line}).stdout.split()

    assert completed("autoprune search agent=crit") == ["agent=critic_guided"]
    assert completed("autoprune train held_out.ev") == ["held_out.evaluations="]
    assert "hydra_bash_completion autoprune" in run("-sc", "install=bash", cwd=tmp_path).stdout


def test_wrong_settings_are_said_before_anything_is_written(tmp_path: Path) -> None:
    """Several at once, one sentence for each; and no folder of the run is left, nor one of W&B."""
    done = run(
        "search", "evaluations=abc", "agent.agent.hidden=[a]", "+evalutions=5", "hydra.run.dir=run", cwd=tmp_path
    )
    assert done.returncode == 1
    assert set(done.stderr.strip().removeprefix("error: ").splitlines()) == {
        'agent.agent.hidden[0] must be an integer, got "a"',
        "evalutions is no setting; did you mean evaluations?",
        'evaluations must be an integer, got "abc"',
    }
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_setting_is_said_beside_a_flag_whose_value_no_setting_could_be(tmp_path: Path) -> None:
    (tmp_path / "my own: conf").mkdir()
    done = run("search", "--config-dir", "my own: conf", "seeed=3", cwd=tmp_path)
    assert (done.returncode, done.stderr.strip()) == (1, "error: seeed is no setting; did you mean seed?")


@pytest.mark.slow
def test_the_main_job_then_its_table_again(tmp_path: Path) -> None:
    done = run("search", *QUICK, "agent=random", "evaluations=20", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("config.yaml", "run.json", "history.jsonl", "result.json", "report.html", "network.onnx", "plan.json"):
        assert (tmp_path / "run" / name).is_file(), name
    assert str(tmp_path / "run" / "report.html") in done.stdout
    shown = run("show", "run", cwd=tmp_path)
    assert shown.returncode == 0
    assert "searched" in shown.stdout
    assert "uniform" in shown.stdout
    again = run("search", *QUICK, "agent=random", "hydra.run.dir=run", cwd=tmp_path)
    assert "holds a run already" in again.stderr


@pytest.mark.slow
def test_a_sweep_over_agents_of_every_kind_runs_clean(tmp_path: Path) -> None:
    agents = "ppo,dqn,random"
    done = run("search", "-m", f"agent={agents}", *QUICK, "evaluations=30", "hydra.sweep.dir=sweep", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = [json.loads(path.read_text()) for path in tmp_path.glob("sweep/*/result.json")]
    assert {result["agent"] for result in results} == set(agents.split(","))
    assert "Warning" not in done.stderr


@pytest.mark.slow
def test_a_task_of_ones_own_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "my_module.py").write_text(MY_TASK)
    arguments = ["task._target_=my_module.my_task", "threads=1", "tracking=none", "recover.steps=5"]
    done = run("search", *arguments, "agent=random", "evaluations=20", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["task"] == "custom"
    (tmp_path / "run" / "result.json").unlink()
    mine = "task._target_=my_module.my_task"
    refused = run("search", "resume=run", cwd=tmp_path)
    assert f"autoprune search resume=run {mine}" in refused.stderr
    assert not (tmp_path / "run" / "result.json").exists()
    done = run("search", "resume=run", mine, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_paid_for_and_says_so(tmp_path: Path) -> None:
    arguments = ["search", *QUICK, "agent=random", "evaluations=100000", "hydra.run.dir=run"]
    process = start(*arguments, cwd=tmp_path)
    history, deadline = tmp_path / "run" / "history.jsonl", time.monotonic() + 300
    while not (history.exists() and history.read_text().count("\n") > 20) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    assert "Interrupted" in errors
    assert "Traceback" not in errors
    assert len(history.read_text().splitlines()) > 20
    shown = run("show", "run", cwd=tmp_path)
    assert shown.returncode == 0
