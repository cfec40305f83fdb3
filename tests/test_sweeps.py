"""Sweeps: real multiruns with every launcher, a SIGKILL in the middle, and jobs that fail."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from autoprune.cli.sweep import FAILED
from tests.commands import run, start

SMALL = ["experiment=smoke", "recover=none", "hydra.sweep.dir=sweep"]


def sweep(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return run("search", "-m", *SMALL, *overrides, cwd=folder)


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
        ["hydra/launcher=submitit_local"],
        ["hydra/launcher=ray_local", "hydra.launcher.ray.init.num_cpus=2"],
    ],
    ids=["joblib", "submitit", "ray"],  # the basic one: in the next test
)
def test_a_failing_job_does_not_take_the_others_with_it(launcher: list[str], tmp_path: Path) -> None:
    done = sweep(tmp_path, *launcher, "agent=ppo,random", "seed=3", "evaluations=5", "tracking=none")
    failed, right = tmp_path / "sweep" / "digits_ppo_seed3_0", tmp_path / "sweep" / "digits_random_seed3_1"
    assert read(right, "result.json")["agent"] == "random"
    assert read(right, "run.json")["group"] == "sweep"
    assert not (right / FAILED).exists()
    record = read(failed, FAILED)
    assert "leaves no episode to learn from" in record["error"]
    assert record["kind"] == "ValueError"
    assert "seed=3" in record["overrides"]
    assert not (failed / "result.json").exists()
    assert done.returncode == 1
    ending = done.stderr[done.stderr.index("error: 1 of the jobs in sweep failed:") :]
    assert re.search(r"^  digits_ppo_seed3_0: of 5 evaluations", ending, re.MULTILINE)
    assert "digits_random" not in ending
    assert "hydra.sweep.dir=sweep" in ending
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_optuna_sweep_goes_on_past_failures_and_repeats_itself(tmp_path: Path) -> None:
    overrides = [
        "hydra/sweeper=tuning", "hydra.sweeper.n_trials=3", "agent=random", "tracking=none", "evaluations=5",
        "agent.least_density=choice(2.0,0.4)",  # 2.0 is no density; the seeded sampler tries 0.4, 2.0, 0.4
    ]  # fmt: skip
    first = sweep(tmp_path, *overrides)
    jobs = sorted((tmp_path / "sweep").glob("digits_*"))
    results = [job / "result.json" for job in jobs if (job / "result.json").exists()]
    failed = [job for job in jobs if (job / FAILED).exists()]
    assert (len(jobs), len(results), len(failed)) == (3, 2, 1)
    assert first.returncode == 1
    assert "error: 1 of the jobs in sweep failed:" in first.stderr
    best = OmegaConf.load(tmp_path / "sweep" / "optimization_results.yaml")
    assert isinstance(best, DictConfig)
    scores = [json.loads(result.read_text())["networks"]["searched"]["recovered_score"] for result in results]
    assert best.best_value == pytest.approx(max(scores))
    stamps = [result.stat().st_mtime_ns for result in results]
    again = sweep(tmp_path, *overrides)
    assert again.stdout.count("is complete already") == 2
    assert [result.stat().st_mtime_ns for result in results] == stamps
    assert OmegaConf.load(tmp_path / "sweep" / "optimization_results.yaml") == best


@pytest.mark.slow
def test_a_killed_sweep_does_what_is_missing_and_nothing_twice(tmp_path: Path) -> None:
    overrides = ["agent=random", "seed=0,1,2", "evaluations=40", "evaluation.store=run", "tracking=none"]
    folders = [tmp_path / "sweep" / f"digits_random_seed{seed}_{seed}" for seed in range(3)]
    process = start("search", "-m", *SMALL, *overrides, cwd=tmp_path)
    history, deadline = folders[1] / "history.jsonl", time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if history.exists() and history.read_bytes().count(b"\n") >= 15:
            process.send_signal(signal.SIGKILL)
        time.sleep(0.002)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert (folders[0] / "result.json").exists()
    assert not (folders[1] / "result.json").exists()
    assert not folders[2].exists()
    survived = history.read_bytes()
    stamps = {file: file.stat().st_mtime_ns for file in folders[0].glob("*.json*")}
    done = sweep(tmp_path, *overrides)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("is complete already") == 1
    assert {file: file.stat().st_mtime_ns for file in folders[0].glob("*.json*")} == stamps
    assert history.read_bytes().startswith(survived[: survived.rindex(b"\n") + 1])
    assert [len(read(folder, "run.json").get("resumed", [])) for folder in folders] == [0, 1, 0]
    assert all(read(folder, "result.json")["evaluations"]["spent"] == 40 for folder in folders)
    other = sweep(tmp_path, *overrides, "evaluations=41")
    assert other.returncode == 1
    assert "seed1_1 holds a run of another configuration: evaluations is 40 there, 41 here" in other.stderr
    assert {file: file.stat().st_mtime_ns for file in folders[0].glob("*.json*") if file in stamps} == stamps
