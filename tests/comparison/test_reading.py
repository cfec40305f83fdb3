"""Folders of runs and sweeps become runs; what is missing is said."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoprune.comparison.reading import job_folders, read_run, read_sweep, settings_of, summary_of
from autoprune.runs import RunFolder
from tests.report.run_folders import write_run

CONFIG: dict[str, Any] = {
    "agent": {"_target_": "autoprune.search.rl.search", "mode": "one_shot", "agent": {"algorithm": "PPO"}},
    "score": {"_target_": "autoprune.evaluation.judge.kl"},
    "recover": {"_target_": "autoprune.recover.fine_tune.fine_tune", "steps": 320},
    "evaluation": {"precision": "auto", "workers": 4, "store": "shared"},
    "importance": {"_target_": "autoprune.importance.magnitude.magnitude"},
    "seed": 3,
    "tracking": {"project": "autoprune"},
}


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def run_of(path: Path, *, config: dict[str, Any] = CONFIG, **changes: Any) -> Path:
    """A complete run of a whole job, as far as result.json goes; `changes` are of result.json."""
    folder = write_run(path, evaluations=40)
    folder.write_text("config.yaml", yaml.safe_dump(config))
    folder.write_json("result.json", folder.read_json("result.json") | changes)
    return path


def read(path: Path) -> Any:
    return read_run(path, read_config=read_yaml)


def test_a_run_is_a_trial(tmp_path: Path) -> None:
    found = read(run_of(tmp_path / "run"))
    result = RunFolder(tmp_path / "run").read_json("result.json")
    searched = result["networks"]["searched"]
    assert (found.task, found.agent, found.seed, found.budget) == ("fashion_resnet20", "ppo", 0, "macs:0.35")
    assert found.own.score == -searched["held_out"]["kl"]  # of a run that wrote no score down
    assert found.own.recovered == searched["after"]
    assert dict(zip(found.own.plan.groups, found.own.plan.kept, strict=True)) == {
        group: entry["kept"] for group, entry in searched["plan"].items()
    }
    assert found.cost_left == pytest.approx(0.3497)
    assert set(found.baselines) == {"uniform", "sensitivity"}
    assert found.anytime is None
    assert found.seconds is None


def test_what_newer_runs_write_is_read(tmp_path: Path) -> None:
    incumbent = {"evaluation": 3, "score": -0.5, "held_out": -0.6, "metrics": {}, "seconds": 1.0, "agent_seconds": 0.1}
    broken = incumbent | {"evaluation": 9, "held_out": None}
    anytime = {"samples": 500, "incumbents": [incumbent, broken], "references": {"uniform": -1.0, "sensitivity": None}}
    seconds = {"judging": 10.0, "agent": 2.0}
    found = read(run_of(tmp_path / "run", anytime=anytime, search_seconds=seconds, optimum=-0.01))
    assert [entry.evaluation for entry in found.anytime.incumbents] == [3]
    assert found.anytime.references == {"uniform": -1.0}
    assert (found.seconds, found.agent_seconds, found.optimum) == (10.0, 2.0, -0.01)


def test_scores_are_those_of_the_run(tmp_path: Path) -> None:
    config = CONFIG | {"score": {"_target_": "autoprune.evaluation.judge.accuracy"}}
    found = read(run_of(tmp_path / "run", config=config))
    assert (found.score_name, found.own.score) == ("accuracy", found.own.held_out["accuracy"])


def test_no_recovery_is_no_recovered_network(tmp_path: Path) -> None:
    config = CONFIG | {"recover": {"_target_": "autoprune.recover.recovery.no_recovery"}}
    assert read(run_of(tmp_path / "run", config=config)).own.recovered is None


def test_settings_are_what_may_change_a_result() -> None:
    found = settings_of(CONFIG)
    assert found["agent.mode"] == "one_shot"
    assert found["agent.agent.algorithm"] == "PPO"
    assert found["evaluation.precision"] == "auto"
    assert settings_of({"constraint": "penalty"}) == {"constraint": "penalty"}  # whatever groups there will be
    assert not {key for key in found if key.startswith(("tracking", "seed", "evaluation.workers", "evaluation.store"))}


def test_an_unwrite_run_is_refused_with_the_way_out(tmp_path: Path) -> None:
    write_run(tmp_path / "run", finished=False)
    with pytest.raises(ValueError, match="search resume="):
        read(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read(tmp_path / "nowhere")


def test_a_damaged_result_is_named() -> None:
    with pytest.raises(ValueError, match=r"the result in here is damaged.*networks"):
        summary_of({"task": "digits"}, {}, {}, where="here")


def test_a_sweep_is_its_trials_and_what_is_missing(tmp_path: Path) -> None:
    for seed in range(2):
        run_of(tmp_path / f"job_{seed}", seed=seed)
    write_run(tmp_path / "job_2", finished=False, evaluations=40)
    failed = tmp_path / "nested" / "job_3"
    failed.mkdir(parents=True)
    RunFolder(failed).write_json("failed.json", {"error": "no memory", "overrides": ["agent=ppo", "seed=3"]})
    for job in ("nested/job_3", "job_4"):
        (tmp_path / job / ".hydra").mkdir(parents=True)
        (tmp_path / job / ".hydra" / "overrides.yaml").write_text("- agent=ppo\n- seed=4\n")
    (tmp_path / "not_a_job").mkdir()
    runs, missing = read_sweep(tmp_path, read_config=read_yaml)
    assert [found.seed for found in runs] == [0, 1]
    assert {Path(job.where).name: (job.what, job.reason) for job in missing} == {
        "job_2": ("agent=ppo budget=macs:0.35", "cut off after 20 evaluations"),
        "job_3": ("agent=ppo seed=3", "failed: no memory"),
        "job_4": ("agent=ppo seed=4", "it ended before its search began"),
    }
    assert [folder.name for folder in job_folders(tmp_path)] == ["job_0", "job_1", "job_2", "job_4", "job_3"]


def test_a_folder_without_jobs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no runs"):
        read_sweep(tmp_path, read_config=read_yaml)
    with pytest.raises(FileNotFoundError, match="no folder"):
        read_sweep(tmp_path / "nowhere", read_config=read_yaml)


def test_runs_of_a_run_come_back_from_json(tmp_path: Path) -> None:
    found = read(run_of(tmp_path / "run"))
    assert type(found).from_json(json.loads(json.dumps(found.as_json()))) == found
