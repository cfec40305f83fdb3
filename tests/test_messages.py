"""What an error tells a person to set can be set: every setting that a message names exists."""

import ast
import inspect
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import autoprune
from autoprune.cli import JOBS, conf_dir
from autoprune.cli.composition import composed
from autoprune.cli.renamed import CHOICES, KEYS
from autoprune.task.task import Task

PACKAGE = Path(autoprune.__file__).parent
SETTING = re.compile(r"(?<![\w./`@])((?:[a-z_]+\.)+[a-z_]+)(?==|\b(?!\())")  # agent.agent.experience.parallel
NO_SETTINGS = re.compile(r"\.(json|jsonl|yaml|html|onnx|safetensors|py|md|txt|gz|npz)\b|^(autoprune|torch)\.")


def messages() -> Iterator[tuple[str, str]]:
    """(where, text) of every string inside a raise statement, and of those that are collected to be raised."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Raise) and node.exc is not None:
                where = f"{file.relative_to(PACKAGE)}:{node.lineno}"
                for part in ast.walk(node.exc):
                    if isinstance(part, ast.JoinedStr):
                        yield where, "".join(v.value if isinstance(v, ast.Constant) else "{}" for v in part.values)
                    elif isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield where, part.value


@cache
def settings() -> frozenset[str]:
    """The full names of everything that can be set: what conf/ lists, and what the signatures of its targets take."""
    names: set[str] = set()
    for job in JOBS.values():
        _add(names, composed(job.name), "")
        _add(names, {"hydra": composed(job.name, hydra=True)["hydra"]}, "")
    for file in conf_dir().glob("*/*.yaml"):
        _add(names, {file.parent.name: yaml.safe_load(file.read_text())}, "")
    for file in conf_dir().glob("evaluation/*/*.yaml"):
        _add(names, {"evaluation": {file.parent.name: yaml.safe_load(file.read_text())}}, "")
    return frozenset(names | {f"task.{field.name}" for field in fields(Task)})  # which a task of one's own sets


def _add(names: set[str], node: Any, inside: str) -> None:
    names.add(inside)
    if isinstance(node, dict):
        for key, value in node.items():
            _add(names, value, f"{inside}.{key}".removeprefix("."))
        if isinstance(node.get("_target_"), str) and not node["_target_"].startswith("hydra"):
            target = pkgutil.resolve_name(node["_target_"])
            names.update(f"{inside}.{name}" for name in inspect.signature(target).parameters)


def named_in(text: str) -> list[str]:
    """The settings that a message names, beginning with a group or a command's own setting."""
    tops = {name for name in settings() if "." not in name}
    return [
        match[1]
        for match in SETTING.finditer(text)
        if match[1].partition(".")[0] in tops and not NO_SETTINGS.search(match[1])
    ]


def test_every_setting_that_a_message_names_exists() -> None:
    named = [(where, name) for where, text in messages() for name in named_in(text)]
    missing = [(where, name) for where, name in named if name not in settings()]
    assert missing == []
    assert len(named) > 60


def test_the_search_for_names_sees_what_is_wrong() -> None:
    """A control: names that do not exist are found, and are missing."""
    assert named_in("set agent.experience.parallel=1 or evaluation.workers=0") == [
        "agent.experience.parallel",
        "evaluation.workers",
    ]
    assert "agent.experience.parallel" not in settings()
    assert {"evaluation.workers", "agent.agent.experience.parallel", "agent.env.levels", "task.keep"} <= settings()


def test_the_new_name_of_every_old_setting_exists() -> None:
    assert set(KEYS.values()) <= settings()
    for choice in CHOICES.values():
        group, _, name = choice.partition("=")
        assert group in settings() or (conf_dir() / group / f"{name}.yaml").is_file()


def test_a_parts_own_settings_are_named_in_full() -> None:
    """`experience.parallel=1` alone is nothing that can be set: where a message says `set KEY=`, KEY is a full name."""
    advice = [(where, match[1]) for where, text in messages() for match in re.finditer(r"\bset \+?([\w.]+)=", text)]
    others = [(where, name) for where, name in advice if name not in settings()]
    assert others == []
    assert advice
