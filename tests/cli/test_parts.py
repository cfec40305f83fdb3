"""What a configuration describes is made."""

from pathlib import Path
from typing import Any

import pytest

from autoprune.cli.parts import chosen_name, instantiate_part, named_task, task_of

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
