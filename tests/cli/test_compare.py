"""`autoprune compare`: what it is asked, what it writes, and real runs."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from autoprune.cli.compare import CompareRequest, compare, never_started
from autoprune.comparison.run_summary import read_summaries, write_summaries
from tests.commands import run
from tests.comparison.run_summaries import ladder

SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


def test_what_it_is_asked(tmp_path: Path) -> None:
    asked = CompareRequest.parse(["run_a", "sweep=s", "t.jsonl", "u.jsonl.gz", "evaluations=100", "out=o"])
    assert (asked.runs, asked.sweeps) == ((Path("run_a"),), (Path("s"),))
    assert asked.files == (Path("t.jsonl"), Path("u.jsonl.gz"))
    assert (asked.evaluations, asked.out, asked.publish) == (100, Path("o"), False)
    (tmp_path / "seed=3").mkdir()  # a folder may be called anything
    assert CompareRequest.parse([str(tmp_path / "seed=3")]).runs == (tmp_path / "seed=3",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "compare needs runs"),
        (["out=x"], "compare needs runs"),
        (["run", "colour=red"], "colour is no setting; autoprune compare has sweep"),
        (["run", "evalution=5"], "evalution is no setting; did you mean evaluations?"),
        (["run", "evaluations=many"], 'evaluations must be an integer or null, got "many"'),
        (["run", "evaluations=0"], r"evaluations.*at least 1 or.*got 0"),
        (["run", "evaluations=5", "evaluations=6"], "evaluations is given twice"),
        (["run", "publish=web"], r"publish.*'wandb'"),
        (["run", "publish=wandb"], "give wandb=ENTITY/PROJECT"),
    ],
)
def test_what_it_cannot_be_asked(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CompareRequest.parse(arguments)


def test_trials_are_compared_and_written_and_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = ladder(["ppo", "random"], seeds=4)
    write_summaries(tmp_path / "given.jsonl.gz", runs)
    compare([str(tmp_path / "given.jsonl.gz"), f"out={tmp_path / 'out'}"])
    assert read_summaries(tmp_path / "out" / "run_summaries.jsonl") == runs
    first = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert first["runs"] == 8
    assert "page: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/nowhere"], "error: {}/nowhere is not a run folder"),
        (["sweep={}/nowhere"], "error: there is no folder {}/nowhere"),
        (["sweep={}"], "error: {} holds no runs"),
        (["{}/none.jsonl"], "there is no file {}/none.jsonl"),
    ],
)
def test_what_is_not_there_is_an_error(arguments: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        compare([argument.format(tmp_path) for argument in arguments])
    assert message.format(tmp_path) in str(ended.value)


def test_a_sweeps_folder_is_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "multirun.yaml").write_text("")
    with pytest.raises(SystemExit, match="give it as sweep="):
        compare([str(tmp_path)])


def test_jobs_that_were_never_started_are_named(tmp_path: Path) -> None:
    def launched(sweeper: str) -> None:
        (tmp_path / "multirun.yaml").write_text(
            f"hydra: {{sweeper: {{_target_: {sweeper}}}, "
            "overrides: {task: ['agent=ppo,random', 'seed=range(0,2)', 'task=digits']}}\n"
        )

    assert never_started(tmp_path) == []  # and no multirun.yaml
    for job, overrides in (("0", ["agent=ppo", "seed=0"]), ("1", ["agent=random", "seed=1"])):
        (tmp_path / job / ".hydra").mkdir(parents=True)
        (tmp_path / job / ".hydra" / "overrides.yaml").write_text(json.dumps([*overrides, "task=digits"]))
    launched(SWEEPER)
    missing = never_started(tmp_path)
    assert [job.what for job in missing] == ["agent=ppo seed=1 task=digits", "agent=random seed=0 task=digits"]
    assert {job.reason for job in missing} == {"it was never started"}
    launched("hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper")
    assert never_started(tmp_path) == []  # it chooses its jobs as it goes


def test_the_documents_example_can_be_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = (Path(__file__).parents[2] / "docs" / "compare.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", document, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    compare(["run_summaries.jsonl", "out=here"])
    agents = json.loads(Path("here/comparison.json").read_text())["post_training"]["agents"]
    assert {agent["label"]: agent["iqm"]["value"] for agent in agents} == {"my_search": 1, "uniform": 0}


def autoprune(*arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return run(*arguments, cwd=folder, env=os.environ | {"WANDB_MODE": "offline", "COLUMNS": "160"})


@pytest.mark.slow
def test_a_real_sweep_is_compared(tmp_path: Path) -> None:
    """Two agents, two seeds, one job of which has lost its result; and once more from run_summaries.jsonl alone."""
    small = ["task=digits", "evaluations=8", "recover.steps=2", "threads=1", "tracking=none"]
    swept = autoprune(
        "search", "-m", *small, "agent=random,uniform", "seed=range(0,2)", "hydra.sweep.dir=sweep", folder=tmp_path
    )
    assert swept.returncode == 0, swept.stdout + swept.stderr
    lost = next((tmp_path / "sweep").glob("*uniform_seed1*"))
    (lost / "result.json").unlink()
    done = autoprune("compare", "sweep=sweep", "out=first", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    result: Any = json.loads((tmp_path / "first" / "comparison.json").read_text())
    assert {a["label"]: a["cells"][0]["seeds"] for a in result["post_training"]["agents"]} == {
        "random": 2, "uniform": 1, "sensitivity": 2,
    }  # fmt: skip
    assert [Path(job["where"]).name for job in result["missing"]] == [lost.name]
    assert "cut off after 1 evaluations" in done.stdout
    runs = read_summaries(tmp_path / "first" / "run_summaries.jsonl")
    random = [run for run in runs if run.agent == "random"]
    assert all(run.anytime and run.anytime.incumbents[-1].evaluation <= 8 for run in random)
    assert all(run.agent_seconds is not None and run.own.recovered for run in runs)
    scores = {run.seed: run.anytime.incumbents[-1].score for run in random if run.anytime}
    for summary in random:
        folder = next((tmp_path / "sweep").glob(f"*random_seed{summary.seed}*"))
        lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        assert scores[summary.seed] == max(line["best"] for line in lines if line["phase"] == "search")
    compare([str(tmp_path / "first" / "run_summaries.jsonl"), f"out={tmp_path / 'again'}"])
    second = json.loads((tmp_path / "again" / "comparison.json").read_text())
    assert second["post_training"] == result["post_training"]
    with pytest.raises(SystemExit, match="error: one seed ranks nothing"):
        compare([str(next((tmp_path / "sweep").glob("*random_seed0*")))])
