"""What a configuration describes is made."""

import sys
from pathlib import Path
from typing import Any

import pytest

from autoprune.cli.parts import chosen_name, instantiate_part, named_target, named_task, task_of

RECOVER = {"_target_": "autoprune.recover.fine_tune.fine_tune", "_partial_": True, "steps": 3}


def test_what_is_described_is_made() -> None:
    assert instantiate_part({"recover": RECOVER}, "recover").keywords == {"steps": 3}
    paths = {"paths": {"a": {"_target_": "pathlib.Path", "_args_": ["x"]}}}
    assert instantiate_part(paths, "paths") == {"a": Path("x")}


@pytest.mark.parametrize("settings", [{}, {"device": None}])
def test_nothing_described_is_none(settings: dict[str, Any]) -> None:
    assert instantiate_part(settings, "device") is None


def test_a_task_is_made_and_its_settings_stay_as_they_are() -> None:
    settings = {"_target_": "autoprune.task.shipped.digits", "keep": ["conv1"]}
    assert task_of(settings, None).keep == {"conv1"}
    assert settings["keep"] == ["conv1"]
    with pytest.raises(ValueError, match=r"task\._target_=pathlib\.Path.*autoprune\.Task.*PosixPath"):
        task_of({"_target_": "pathlib.Path"}, None)


@pytest.mark.parametrize(
    ("source", "why"),
    [("import no_such_package_anywhere\n", "ModuleNotFoundError: No module named 'no_such_package_anywhere'"),
     ("def task(:\n", "SyntaxError: "), ("weights = {}['last']\n", "KeyError: 'last'"), ("x = 1\n", "AttributeError: "),
     ("import sys\nsys.exit(3)\n", "RuntimeError: .* ends the process")],
)  # fmt: skip
def test_what_a_tasks_module_raises_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, why: str
) -> None:
    """And not that the module lacks the function, as a run that is resumed said."""
    name = f"module_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"_target_={name}\\.task cannot be imported: {why}"):
        task_of({"_target_": f"{name}.task"}, None)


def test_a_tasks_module_sees_no_arguments_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that parses its own gets its defaults."""
    name = f"module_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text("""
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--width", type=int, default=8)
WIDTH = parser.parse_args().width

def task():
    from autoprune.task.shipped import digits
    parser.parse_args()
    return digits()
""")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.argv", ["autoprune", "evaluations=4"])
    assert task_of({"_target_": f"{name}.task"}, None).name == "digits"
    assert sys.argv == ["autoprune", "evaluations=4"]


@pytest.mark.parametrize("name", ["json", "sys"])
def test_a_module_that_another_one_hides_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("def task(): ...")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"which hides {tmp_path}/{name}\.py: give that another name"):
        named_target(f"{name}.task", key="task._target_")
    with pytest.raises(ValueError, match=r"has no attribute 'nothing'; public names are"):
        named_target("autoprune.nothing", key="task._target_")


def test_an_unknown_task_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="there is no task 'digit'; did you mean digits"):
        named_task("digit")


@pytest.mark.parametrize(
    ("choice", "target", "name"),
    [
        ("digits", "autoprune.task.shipped.digits", "digits"),
        ("fashion_resnet20", "my_module.my_task", "my_task"),
        ("of_their_own_folder", "theirs.task", "of_their_own_folder"),
    ],
)
def test_a_part_is_called_by_its_file_or_by_its_own_function(choice: str, target: str, name: str) -> None:
    assert chosen_name("task", choice=choice, target=target) == name
