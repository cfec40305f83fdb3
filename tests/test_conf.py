"""Every YAML composes, every `_target_` resolves, and its keys bind to the signature."""

import inspect
from collections.abc import Sequence
from functools import partial
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.utils import get_object, instantiate

from autoprune.cli import conf_dir
from autoprune.cli.command_settings import RULES, SearchSettings, TrainPrunedSettings
from autoprune.cli.validation import check
from tests.composition import composed

CHOICES = sorted(
    f"{path.parent.name}={path.stem}" for path in conf_dir().glob("*/*.yaml") if path.parent.name != "experiment"
)


OTHERS = {"schedule": ("train_pruned", TrainPrunedSettings)}  # groups of other commands than search


NOW = {"given"}  # what criteria are passed, which may also take what they took in version 0.1


def rounds(choices: Sequence[str]) -> list[list[str]]:
    """Every choice once, with choices of the other groups: composing takes as long for one as for one of each."""
    groups = [list(group) for _, group in groupby(choices, key=lambda choice: choice.split("=")[0])]
    return [[choice for choice in together if choice is not None] for together in zip_longest(*groups)]


@pytest.mark.parametrize("choices", rounds(CHOICES), ids=" ".join)
def test_they_compose_and_their_keys_bind(choices: list[str]) -> None:
    for name, section in (("config", SearchSettings), *OTHERS.values()):
        own = [choice for choice in choices if OTHERS.get(choice.split("=")[0], ("config", None))[0] == name]
        if not own:
            continue
        everything = composed(*own, name=name)
        check(everything, section, RULES, command="autoprune search")
        for group in (choice.split("=")[0] for choice in own):
            settings, keys_of_its_own = everything[group], {"keep", "device"} if group == "task" else set()
            _check(
                settings,
                keys_of_its_own=keys_of_its_own,
                run_time=NOW if group == "importance" else RULES.at_run_time.get(group, set()),
            )
            if group not in ("task", "data", "device"):  # which are made of files and machines
                part = instantiate(settings, _convert_="all")
                assert isinstance(part, partial) == bool(settings.get("_partial_"))


@pytest.mark.parametrize("path", sorted((conf_dir() / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_composes(path: Path) -> None:
    base, overlaid = composed(), composed(f"experiment={path.stem}")
    assert overlaid.keys() <= base.keys() | {"data"}
    assert overlaid != base
    others = composed(
        f"experiment={path.stem}", "recover=none", "quantize=none", "repair=none", "agent=random", "importance=l1"
    )
    check(others, SearchSettings, RULES, command="autoprune search")  # what it sets of other choices is not left over


def test_conf_holds_yaml_only() -> None:
    assert {path.suffix for path in conf_dir().rglob("*") if path.is_file()} == {".yaml"}


def _check(settings: dict[str, Any], *, keys_of_its_own: set[str], run_time: set[str]) -> None:
    target = get_object(settings["_target_"])
    keys = settings.keys() - {"_target_", "_partial_"} - keys_of_its_own
    signature = inspect.signature(target)
    given = dict.fromkeys(keys | (run_time if settings.get("_partial_") else set()))
    unknown = given.keys() - signature.parameters.keys()
    assert not unknown, f"{settings['_target_']} takes no {unknown}"
    missing = {
        name
        for name, parameter in signature.parameters.items()
        if parameter.default is parameter.empty and name not in given
    }
    assert not missing, f"{settings['_target_']} also needs {missing}"
    for value in settings.values():
        if isinstance(value, dict) and "_target_" in value:
            _check(value, keys_of_its_own=set(), run_time=run_time)


def test_yaml_defaults_are_written_once() -> None:
    """A key that configures a function has no default in the function's signature as well."""
    for choice in CHOICES:
        group, name = choice.split("=")
        settings = yaml.safe_load((conf_dir() / group / f"{name}.yaml").read_text())
        parameters = inspect.signature(get_object(settings["_target_"])).parameters
        doubled = [
            key
            for key, value in settings.items()
            if key in parameters
            and parameters[key].default not in (inspect.Parameter.empty, None)
            and value is not None
        ]
        assert not doubled, f"{choice}: {doubled} have defaults in two places"
