import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from autoprune.cli import conf_dir
from autoprune.cli.sweep import FAILED, SweepEnd, SweepJob, differences

RESULT = {"networks": {"searched": {"recovered_score": -0.25}}}
KEYS = st.text("abc", min_size=1, max_size=3)
TREES = st.recursive(
    st.none() | st.integers() | st.text("xyz") | st.lists(st.integers(), max_size=2),
    lambda inside: st.dictionaries(KEYS, inside, max_size=3),
    max_leaves=8,
)


def configuration(**changes: Any) -> DictConfig:
    return OmegaConf.create({"seed": 0, "agent": {"name": "ppo", "rate": 1e-5}, "budget": None} | changes)


def failure(folder: Path) -> Any:
    return json.loads((folder / FAILED).read_text())


def begin(folder: Path, config: DictConfig) -> Callable[..., float]:
    """A search that writes what a real one does, and remembers whether it was to go on."""
    told: list[bool] = []

    def search(*, resumed: bool) -> float:
        told.append(resumed)
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
        (folder / "run.json").write_text("{}")
        return -0.5

    search.told = told  # type: ignore[attr-defined]
    return search


def test_a_job_is_started_then_gone_on_with_then_read(tmp_path: Path) -> None:
    folder, config = tmp_path / "job", configuration()
    job, search = SweepJob(folder, config, []), begin(folder, config)
    assert job.result(search) == -0.5
    assert job.result(search) == -0.5
    (folder / "result.json").write_text(json.dumps(RESULT))
    assert job.result(search) == -0.25
    assert search.told == [False, True]  # type: ignore[attr-defined]


def test_a_failure_stands_in_the_folder_until_the_job_succeeds(tmp_path: Path) -> None:
    job = SweepJob(tmp_path, configuration(), ["seed=0"])

    def fail(*, resumed: bool) -> float:
        try:
            raise ValueError("least_density must be below 1, got 2.0")
        except ValueError as error:
            raise InstantiationException("Error in call to target") from error

    def crash(*, resumed: bool) -> float:
        raise KeyError("costs")

    assert job.result(fail) is None
    record = failure(tmp_path)
    assert record["error"] == "least_density must be below 1, got 2.0"
    assert record["overrides"] == ["seed=0"]
    assert "in fail" in record["traceback"]
    assert job.result(crash) is None
    assert failure(tmp_path)["error"].startswith("KeyError 'costs' (test_sweep.py, line ")
    assert job.result(lambda *, resumed: 0.5) == 0.5
    assert not (tmp_path / FAILED).exists()


def test_an_interruption_is_no_failure(tmp_path: Path) -> None:
    def interrupted(*, resumed: bool) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SweepJob(tmp_path, configuration(), []).result(interrupted)
    assert not (tmp_path / FAILED).exists()


@pytest.mark.parametrize("complete", [False, True])
def test_a_run_of_another_configuration_is_left_alone_and_said_so(complete: bool, tmp_path: Path) -> None:
    folder, config = tmp_path / "job", configuration()
    search = begin(folder, config)
    SweepJob(folder, config, []).result(search)
    if complete:
        (folder / "result.json").write_text(json.dumps(RESULT))
    other = SweepJob(folder, configuration(seed=1, agent={"name": "ppo", "rate": 1e-4}, budget="macs:0.5"), [])
    assert other.result(search) is None
    error = failure(folder)["error"]
    for difference in ("seed is 0 there, 1 here", "agent.rate is 1e-05 there, 0.0001 here", "budget is null there"):
        assert difference in error
    assert "agent.name" not in error
    assert search.told == [False]  # type: ignore[attr-defined]


def test_a_result_of_an_earlier_version_has_no_value(tmp_path: Path) -> None:
    search = begin(tmp_path, configuration())
    search(resumed=False)
    (tmp_path / "result.json").write_text(json.dumps({"networks": {"searched": {}}}))
    assert SweepJob(tmp_path, configuration(), []).result(search) is None
    assert "an earlier version" in failure(tmp_path)["error"]


def test_the_end_of_a_sweep_lists_what_failed_at_any_depth(tmp_path: Path) -> None:
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    SweepEnd().on_multirun_end(config)  # nothing failed: no exit
    for job in ("b", "a/deeper"):
        (tmp_path / job).mkdir(parents=True)
        (tmp_path / job / FAILED).write_text(json.dumps({"error": f"why {job}"}))
    with pytest.raises(SystemExit) as ended:
        SweepEnd().on_multirun_end(config)
    assert str(ended.value).splitlines()[1:3] == ["  a/deeper: why a/deeper", "  b: why b"]


@given(TREES)
def test_a_configuration_does_not_differ_from_itself(tree: Any) -> None:
    assert differences({"top": tree}, {"top": tree}) == []


@given(st.dictionaries(KEYS, TREES, min_size=1, max_size=3), st.data())
def test_a_changed_value_is_the_only_difference(tree: dict[str, Any], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(tree)))
    (difference,) = differences({"top": tree}, {"top": {**tree, key: "changed"}})
    assert difference.startswith(f"top.{key} is ")
    assert difference.endswith(" there, changed here")
    (gone,) = differences({"top": tree}, {"top": {k: v for k, v in tree.items() if k != key}})
    assert gone.endswith(" there, absent here")


def hydra_settings(*overrides: str) -> Any:
    with initialize_config_dir(version_base="1.3", config_dir=str(conf_dir())):
        return compose("config", overrides=list(overrides), return_hydra_config=True).hydra


def test_presets_add_what_they_say_to_the_plugins_own_settings() -> None:
    launcher = hydra_settings("hydra/launcher=ray_local").launcher
    assert launcher._target_.endswith("RayLauncher")
    assert launcher.ray.init == {"address": None, "num_cpus": None, "include_dashboard": False}
    sweeper = hydra_settings("hydra/sweeper=tuning").sweeper
    assert sweeper._target_.endswith("OptunaSweeper")
    assert (str(sweeper.direction), sweeper.sampler.seed, sweeper.n_jobs) == ("maximize", 0, 1)
    assert sweeper.sampler._target_ == "optuna.samplers.TPESampler"
