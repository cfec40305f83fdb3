"""A run that is killed and resumed ends as one that was left alone, and judges nothing twice."""

import json
import os
import random
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from autoprune.machine_cache import cache_dir
from tests import commands
from tests.commands import Started, start_python

SETTINGS = ["task=digits", "threads=1", "recover.steps=20", "hydra.run.dir=run"]
ALIKE = ("evaluation", "phase", "kept", "samples", "accuracy", "kl", "score", "reward", "feasible", "best")


def environment(folder: Path) -> dict[str, str]:
    """With a cache of its own, which has the trained digits network already."""
    cache = folder / "cache"
    if not cache.exists():
        from autoprune.task.shipped import digits

        digits()  # makes sure that there is something to copy
        cache.mkdir(parents=True)
        (cache / "digits_net.safetensors").write_bytes((cache_dir() / "digits_net.safetensors").read_bytes())
    return os.environ | {"AUTOPRUNE_CACHE": str(cache), "PYTHONUNBUFFERED": "1", "WANDB_MODE": "offline"}


def start(folder: Path, *arguments: str) -> Started:
    folder.mkdir(exist_ok=True)
    return commands.start("search", *arguments, cwd=folder, env=environment(folder))


def finish(folder: Path, *arguments: str, fresh: bool = False) -> None:
    folder.mkdir(exist_ok=True)
    done = commands.run("search", *arguments, cwd=folder, env=environment(folder), fresh=fresh)
    assert done.returncode == 0, done.stderr


KILLED = """
import os, random, signal, sys, threading
from autoprune.cli import main
from autoprune.runs import RunFolder

name, lines = sys.argv.pop(1), int(sys.argv.pop(1))
append = RunFolder.append

def counted(run, file, record):
    append(run, file, record)
    if file == name and (run.path / file).read_bytes().count(b"\\n") >= lines:
        threading.Timer(random.uniform(0, 0.01), os.kill, (os.getpid(), signal.SIGKILL)).start()

RunFolder.append = counted
main()
"""


def kill_once(folder: Path, *arguments: str, file: str, lines: int) -> int:
    """SIGKILL within milliseconds after the run's file has so many lines; how many it then has."""
    folder.mkdir(exist_ok=True)
    process = start_python(KILLED, file, f"{lines}", "search", *arguments, cwd=folder, env=environment(folder))
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    return (folder / "run" / file).read_bytes().count(b"\n")


def lines_of(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run" / name).read_text().splitlines()]


def judged(folder: Path) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Everything in the store but the time it took."""
    with sqlite3.connect(folder / "cache" / "evaluations.sqlite") as connection:
        rows = connection.execute("SELECT context, kept, batch, samples, numbers FROM judged").fetchall()
    return {row[:3]: row[3:] for row in rows}


def result(folder: Path) -> dict[str, Any]:
    """What must not depend on whether the run was cut off."""
    found = json.loads((folder / "run" / "result.json").read_text())
    return {
        "chosen": found["chosen"],
        "evaluations": found["evaluations"],
        "networks": {
            name: {key: network[key] for key in ("plan", "cost", "proxy", "held_out", "before", "after")}
            for name, network in found["networks"].items()
        },
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "evaluations"),
    [(["agent=ppo"], 36), (["agent=amc", "agent.agent.experience.warm_up_episodes=6"], 24)],
    ids=["ppo", "amc"],
)
def test_a_run_killed_at_random_moments_ends_as_one_left_alone(
    agent: list[str], evaluations: int, tmp_path: Path
) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    agent = [*agent, f"evaluations={evaluations}"]
    finish(alone, *SETTINGS, *agent, "tracking=none")
    rng = random.Random(0)
    moments = [
        ("history.jsonl", rng.randrange(1, evaluations)),
        ("recover.jsonl", rng.randint(1, 2)),  # the lines of one plan: what equals a baseline is not recovered twice
    ]
    survived: dict[str, int] = {}
    for number, (file, lines) in enumerate(moments):
        arguments = ["resume=run"] if number else [*SETTINGS, *agent, "tracking=wandb"]
        now = kill_once(killed, *arguments, file=file, lines=lines)
        assert now >= survived.get(file, 0)  # nothing that was there is gone
        survived[file] = now
    finish(killed, "resume=run", fresh="agent=ppo" in agent)  # a new interpreter orders sets in another way
    for name in ("history.jsonl", "plans.json", "plan.json"):
        assert not (killed / "run" / f"{name}.before-resuming").exists()
    one, other = (
        [{key: line.get(key) for key in ALIKE} for line in lines_of(folder, "history.jsonl")]
        for folder in (alone, killed)
    )
    assert one == other
    for name in ("agent.jsonl", "recover.jsonl"):
        assert lines_of(alone, name) == lines_of(killed, name)
    assert result(alone) == result(killed)
    assert judged(alone) == judged(killed)
    record = json.loads((killed / "run" / "run.json").read_text())
    assert len(record["resumed"]) == len(moments)
    offline = list((killed / "run" / "wandb").glob("offline-run-*"))
    assert {path.name.rpartition("-")[2] for path in offline} == {record["tracker"]}  # one id for all parts
    assert "is complete" in start(killed, "resume=run").communicate()[1]


@pytest.mark.slow
def test_what_cannot_be_resumed_is_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        (["resume=empty"], "not a run folder"),
        (["resume=nowhere"], "not a run folder"),
        (["resume=empty", "seed=3"], "takes no other override"),
    ):
        _, errors = start(tmp_path, *arguments).communicate()
        assert message in errors
        assert "Traceback" not in errors


@pytest.mark.slow
def test_a_second_search_pays_nothing_for_what_a_first_has_paid_for(tmp_path: Path) -> None:
    arguments = ["task=digits", "threads=1", "evaluations=40", "agent=ppo", "tracking=none", "recover=none"]
    finish(tmp_path, *arguments, "hydra.run.dir=run")
    before = judged(tmp_path)
    finish(tmp_path, *arguments, "hydra.run.dir=again")
    assert judged(tmp_path) == before
    first, second = (json.loads((tmp_path / run / "result.json").read_text()) for run in ("run", "again"))
    assert first["evaluations"] == second["evaluations"]
    assert first["evaluations"]["limit"] == first["evaluations"]["spent"] == 40
    assert first["networks"]["searched"]["plan"] == second["networks"]["searched"]["plan"]
