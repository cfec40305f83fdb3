"""A run folder may be somebody else's: nothing in its configuration is resolved or called that is not autoprune's."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoprune.cli.compare import never_started
from autoprune.cli.composition import composed
from autoprune.cli.foreign import own_targets, read_config, trusted_config
from autoprune.cli.renamed import CHOICES, KEYS, refuse_old_names
from autoprune.cli.search import resume

SECRET = "a token that only this process knows"


@pytest.fixture(scope="module")
def composed_once() -> dict[str, Any]:
    return composed("config", ["task=digits", "agent=random", "tracking=none"])


@pytest.fixture
def settings(composed_once: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("AUTOPRUNE_TEST_TOKEN", SECRET)
    return deepcopy(composed_once)


def folder_with(path: Path, settings: dict[str, Any] | str) -> Path:
    """A run that was cut off."""
    path.mkdir(parents=True, exist_ok=True)
    text = settings if isinstance(settings, str) else yaml.safe_dump(settings)
    (path / "config.yaml").write_text(text)
    (path / "run.json").write_text(json.dumps({"agent": "random", "group": None, "overrides": []}))
    return path


def with_value(settings: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    first, _, rest = key.partition(".")
    return {**settings, first: with_value(settings.get(first, {}), rest, value) if rest else value}


def test_ones_own_run_is_trusted(settings: dict[str, Any], tmp_path: Path) -> None:
    file = folder_with(tmp_path / "run", settings) / "config.yaml"
    assert trusted_config(file, [], command="") == settings


def touched(path: str) -> None:
    Path(path).write_text("it ran")


HOSTILE = [
    ("task._target_", "os.system"),
    ("task._target_", "tests.cli.test_foreign.touched"),
    ("task._target_", "hydra.utils.get_method"),
    ("task._target_", "hydra.utils.get_object"),
    ("task._target_", "hydra.utils.instantiate"),
    ("task._target_", "autoprune.cli.parts.instantiate"),  # autoprune's module, somebody else's function
    ("task._target_", "autoprune.runs.os.system"),
    ("task._target_", "autoprune.task.folders.load_model"),  # its own function, but none that conf/ names
    ("task._target_", ["os.system"]),
    ("task._target_", {"_target_": "os.system"}),
    ("agent.least_density", {"_target_": "os.system"}),
    ("costs.report", [{"_target_": "os.system", "_args_": ["true"]}]),
    ("costs.context", {"deeper": [[{"_target_": "builtins.eval"}]]}),
    ("nothing.that.is.known._target_", "os.system"),
    ("seed", "${oc.env:AUTOPRUNE_TEST_TOKEN}"),
    ("task.keep", ["${oc.env:AUTOPRUNE_TEST_TOKEN}"]),
    ("structure.round_to", "${oc.decode:${oc.env:AUTOPRUNE_TEST_TOKEN}}"),
]


@pytest.mark.parametrize(("key", "value"), HOSTILE, ids=[f"{key}={value}" for key, value in HOSTILE])
def test_a_hostile_run_is_not_resumed(
    key: str, value: Any, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither does anything in it run, nor is a secret in what is said or written."""
    monkeypatch.chdir(tmp_path)
    mark = tmp_path / "mark"
    hostile = with_value(settings, key, value)
    if key == "task._target_":
        hostile["task"] |= {"path": str(mark), "command": f"touch {mark}"}
    run = folder_with(tmp_path / "run", hostile)
    before = {file: file.read_bytes() for file in run.iterdir()}
    with pytest.raises(SystemExit) as ended:
        resume([f"resume={run}"])
    assert str(ended.value).startswith(f"error: {run / 'config.yaml'}: {key.split('.')[0]}")
    assert SECRET not in str(ended.value)
    assert not mark.exists()
    assert {file: file.read_bytes() for file in run.iterdir()} == before


def test_a_key_cannot_hide_an_interpolation(settings: dict[str, Any], tmp_path: Path) -> None:
    file = folder_with(tmp_path / "run", {**settings, "${oc.env:AUTOPRUNE_TEST_TOKEN}": 1}) / "config.yaml"
    with pytest.raises(ValueError, match="interpolation") as refused:
        trusted_config(file, [], command="")
    assert SECRET not in str(refused.value)


def test_what_the_person_repeats_is_trusted_and_nothing_else(settings: dict[str, Any], tmp_path: Path) -> None:
    mine = with_value(settings, "task._target_", "my_module.my_task")
    mine = with_value(mine, "agent._target_", "my_module.my_search")
    file = folder_with(tmp_path / "run", mine) / "config.yaml"
    both = ["task._target_=my_module.my_task", "agent._target_=my_module.my_search"]
    assert trusted_config(file, both, command="") == mine
    with pytest.raises(ValueError, match=r"autoprune search resume=RUN agent\._target_=my_module\.my_search"):
        trusted_config(file, both[:1], command="autoprune search resume=RUN")
    with pytest.raises(ValueError, match=r"has no task\._target_=another\.task"):
        trusted_config(file, [*both, "task._target_=another.task"], command="")
    assert trusted_config(file, both[:1], command="", sections=("task",)) == {"task": mine["task"]}


def test_a_run_takes_no_other_override(settings: dict[str, Any], tmp_path: Path) -> None:
    run = folder_with(tmp_path / "run", settings)
    for others in (["seed=3"], [f"resume={run}"]):
        with pytest.raises(SystemExit, match="resumed as it was started"):
            resume([f"resume={run}", *others])


def test_a_hostile_file_makes_no_object(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    file = folder_with(tmp_path / "run", f"seed: !!python/object/apply:os.system ['touch {mark}']\n") / "config.yaml"
    with pytest.raises(ValueError, match="is no configuration"):
        read_config(file)
    assert not mark.exists()
    for text in ("- a\n- b\n", "a: [", "\x00"):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"config\.yaml"):
            read_config(file)


def test_a_configuration_that_is_compared_is_not_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPRUNE_TEST_TOKEN", SECRET)
    text = "seed: ${oc.env:AUTOPRUNE_TEST_TOKEN}\nrepair: {ridge: '${oc.env:AUTOPRUNE_TEST_TOKEN}'}\n"
    read = read_config(folder_with(tmp_path / "run", text) / "config.yaml")
    assert read == {"seed": "${oc.env:AUTOPRUNE_TEST_TOKEN}", "repair": {"ridge": "${oc.env:AUTOPRUNE_TEST_TOKEN}"}}
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    sweeper = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
    overrides = ["'seed=${oc.env:AUTOPRUNE_TEST_TOKEN}'"]
    (sweep / "multirun.yaml").write_text(
        f"hydra: {{sweeper: {{_target_: {sweeper}}}, overrides: {{task: [{', '.join(overrides)}]}}}}\n"
    )
    (sweep / "0" / ".hydra").mkdir(parents=True)
    (sweep / "0" / ".hydra" / "overrides.yaml").write_text("['a=${oc.env:AUTOPRUNE_TEST_TOKEN}']")
    missing = never_started(sweep)
    assert len(missing) == 1
    assert SECRET not in missing[0].what


def test_own_targets_are_those_of_conf() -> None:
    targets = own_targets()
    assert {"autoprune.task.shipped.digits", "autoprune.agent.agent_spec.AgentSpec"} <= targets
    assert all(target.startswith("autoprune.") for target in targets)


@pytest.mark.parametrize(("old", "new"), [*CHOICES.items(), *((f"{old}=1", new) for old, new in KEYS.items())])
def test_old_names_are_refused_with_the_new_one(old: str, new: str) -> None:
    for override in (old, f"+{old}", f"++{old}"):
        with pytest.raises(ValueError, match="since 0") as refused:
            refuse_old_names([override])
        assert new in str(refused.value)


def test_a_run_of_an_earlier_version_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    for key, new in {"agent.reach": "agent.env.max_log_correction", "agent.tells": "agent.env.seed_replay"}.items():
        file = folder_with(tmp_path / "run", with_value(settings, key, 1.5)) / "config.yaml"
        with pytest.raises(ValueError, match=f"autoprune 0.1: {key} is called {new}"):
            read_config(file)
    suited = with_value(settings, "importance._target_", "autoprune.importance.suited.suited")
    with pytest.raises(ValueError, match="default_criterion"):
        read_config(folder_with(tmp_path / "run", suited) / "config.yaml")


def test_new_names_and_values_are_not_old_ones() -> None:
    refuse_old_names(["agent._target_=my_module.my_search", "agent.mode=fast"])
    refuse_old_names(["agent=transferable", "agent.env.mode=edit", "evaluations=5", "-m", "task=digits,table_plain"])
