"""Every setting of every command has a type and a range, and nothing else is a setting."""

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from autoprune.cli import JOBS, conf_dir
from autoprune.cli.command_settings import RULES, Described
from autoprune.cli.composition import check_choices, composed, sentence_of
from autoprune.cli.validation import Rules, Section, SettingsError, check

TARGETS = "tests.cli.test_validation"
FILES = [path for path in sorted(conf_dir().glob("*/*.yaml")) if path.parent.name != "experiment"]
TEXTS = {"policy", "model", "entity", "address", "tables", "folder", "table"}  # null in conf/, a text elsewhere
ANYTHING = {"ent_coef"}  # of Stable-Baselines3: a number or a text


@cache
def base(command: str) -> dict[str, Any]:
    return composed(JOBS[command].name)


def wrong(command: str, *overrides: str) -> list[str]:
    """The sentences that a command's check has for these overrides."""
    settings = base(command)
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        settings = with_value(settings, tuple(str(override.key_or_group).split(".")), override.value())
    try:
        check(settings, JOBS[command].section, RULES, command=f"autoprune {command}")
    except SettingsError as error:
        return str(error).splitlines()
    return []


def with_value(settings: dict[str, Any], keys: tuple[str, ...], value: Any) -> dict[str, Any]:
    key, *inside = keys
    there = next((each for each in settings if str(each) == key), key)
    return {**settings, there: with_value(settings[there], tuple(inside), value) if inside else value}


@pytest.mark.parametrize("command", JOBS)
def test_what_stands_in_conf_is_right(command: str) -> None:
    assert wrong(command) == []


@pytest.mark.parametrize(
    ("override", "key", "allowed"),
    [
        ("evaluations=abc", "evaluations", "an integer"),
        ("evaluations=1.5", "evaluations", "an integer"),
        ("evaluations=true", "evaluations", "an integer"),
        ("evaluations=0", "evaluations", "at least 1"),
        ("seed=null", "seed", "an integer"),
        ("seed=1.5", "seed", "an integer"),
        ("seed=-1", "seed", "at least 0"),
        ("threads=100000", "threads", "at most 1024 or null"),
        ("budget=5", "budget", "a string or a list or null"),
        ("budget=[macs:0.5,5]", "budget[1]", "a string"),
        ("budget=''", "budget", "cost:amount"),
        ("budget=[]", "budget", "empty"),
        ("budget=half", "budget", "cost:amount"),
        ("budget=macs:-0.5", "budget", "cost:amount"),
        ("budget=macs:nan", "budget", "cost:amount"),
        ("policy=5", "policy", "a string or null"),
        ("structure.round_to=abc", "structure.round_to", "'device'"),
        ("structure.prune=heads", "structure.prune", "a list or null"),
        ("structure=5", "structure", "a group of prune"),
        ("task.keep=true", "task.keep", "a list"),
        ("task.keep=conv1", "task.keep", "a list"),
        ("task.keep=[5]", "task.keep[0]", "a string"),
        ("agent.agent.hidden=[a]", "agent.agent.hidden[0]", "an integer"),
        ("agent.agent.experience=5", "agent.agent.experience", "described by a _target_"),
        ("agent.agent.algorithm=TD4", "agent.agent.algorithm", "'TD3'"),
        ("agent.agent.hyperparameters.learning_rate=abc", "agent.agent.hyperparameters.learning_rate", "a number"),
        ("tracking.project=a/b", "tracking.project", "characters"),
        ("evaluation.store=disk", "evaluation.store", "'shared' or 'run' or null"),
        ("evaluation.batch_size=1", "evaluation.batch_size", "at least 2 or 'auto'"),
        ("costs.weight_bits=12", "costs.weight_bits", "8, 16 or 32"),
    ],
)
def test_a_wrong_value_is_answered_with_its_key_and_what_is_allowed(override: str, key: str, allowed: str) -> None:
    (sentence,) = wrong("search", override)
    assert sentence.startswith((f"{key} ", f"{key}: "))
    assert allowed in sentence
    value = override.partition("=")[2].strip("'[]") or "[]"
    assert value.rpartition(",")[2] in sentence or value == "[]"


@pytest.mark.parametrize(
    ("command", "override", "key"),
    [
        ("train", "variants=0", "variants"),
        ("train", "variants.numbers=-1", "variants.numbers"),
        ("train", "variants.families=[plane]", "variants.families[0]"),
        ("train", "tasks=digits", "tasks"),
        ("train", "tasks=[digits,{_target_:autoprune.task.shipped.digits,keep:conv1}]", "tasks[1].keep"),
        ("train", "budget=half", "budget"),
        ("train", "budget=macs:0.8..0.2", "budget"),
        ("train", "held_out.budgets=[macs]", "held_out.budgets[0]"),
        ("fidelity", "second=5", "second"),
        ("fidelity", "second.plans=1", "second.plans"),
        ("fidelity", "lengths=[0,a]", "lengths[1]"),
        ("fidelity", "lengths=[]", "lengths"),
        ("fidelity", "default.score=5", "default.score"),
        ("profile", "plans=many", "plans"),
        ("profile", "device.threads=0", "device.threads"),
        ("apply", "agent.candidates=0", "agent.candidates"),
    ],
)
def test_every_command_checks_its_own(command: str, override: str, key: str) -> None:
    (sentence,) = wrong(command, override)
    assert sentence.startswith((f"{key} ", f"{key}: "))


def leaves() -> Iterator[tuple[dict[str, Any], dict[tuple[str, ...], Any]]]:
    """(settings, keys → value) of every file in the groups of conf/, with the values of each target once."""
    seen = set()
    for file in FILES:
        node = yaml.safe_load(file.read_text())
        node |= {key: base("search")[key] for key, value in node.items() if str(value).startswith("${")}
        new = {}
        for keys, target, value in _values(node, (file.parent.name,), ""):
            if (target, keys[-1]) not in seen:
                seen.add((target, keys[-1]))
                new[keys] = value
        yield {file.parent.name: node}, new


def _values(node: dict[str, Any], keys: tuple[str, ...], target: str) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """(keys, the target that they are settings of, value)"""
    target = str(node.get("_target_", target))
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _values(value, (*keys, str(key)), target)
        elif not str(key).startswith("_"):
            yield (*keys, str(key)), target, value


def impossible(key: str, value: Any) -> list[Any]:
    """What cannot stand in the place of this value, whatever the setting is; more of it the more its type says."""
    if key in ANYTHING:
        return [[], {"a": 1}, True]
    match value:
        case bool():
            return ["abc", 5, 1.5, [], {"a": 1}, float("nan")]
        case int() | float():
            return ["abc", "", True, [], {"a": 1}, float("nan"), float("inf"), -1]
        case str():
            others = {
                "batch_size": [1.5, True],
                "round_to": [1.5, True],
                "bf16": [5, 1.5],
            }  # with a word for what is best
            return [*others.get(key, [5, 1.5, True]), [], {"a": 1}]
        case list():
            return ["abc", 5, True, {"a": 1}, [True], [None], [[]]]
        case None if key in TEXTS:
            return [5, 1.5, True, []]
    return [True, {"a": 1}] if key not in ("sources", "sizes") else [True, "abc", 5]


def accepted(settings: dict[str, Any], section: Any, values: dict[tuple[str, ...], list[Any]]) -> list[str]:
    """Keys and impossible values of which a check has no sentence, tried all at once, then alone who has none there."""
    kept = []
    for turn in range(max(map(len, values.values()), default=0)):
        others = {keys: each[turn] for keys, each in values.items() if turn < len(each)}
        named = refused_keys(settings, section, others)
        alone = {keys: other for keys, other in others.items() if ".".join(keys) not in named}
        kept += [
            f"{'.'.join(keys)}={other!r}"
            for keys, other in alone.items()
            if ".".join(keys) not in refused_keys(settings, section, {keys: other})
        ]
    return kept


def refused_keys(settings: dict[str, Any], section: Any, others: dict[tuple[str, ...], Any]) -> set[str]:
    """What the sentences begin with that a check has of the settings with those values."""
    for keys, other in others.items():
        settings = with_value(settings, keys, other)
    try:
        check(settings, section, RULES, command="")
    except SettingsError as error:
        return {re.split(r"[ :=\[]", line)[0] for line in str(error).splitlines()}
    return set()


def test_no_setting_takes_what_is_not_its_kind() -> None:
    """Every key of every file in conf/, with values of another type, NaN, infinity, and negative numbers."""
    asked = 0
    for settings, of_file in leaves():
        (group,) = settings
        section = type("Only", (Section,), {"__annotations__": {group: Described}})
        values = {keys: impossible(keys[-1], value) for keys, value in of_file.items()}
        asked += sum(map(len, values.values()))
        assert accepted(settings, section, values) == []
    assert asked > 500


@pytest.mark.parametrize("command", JOBS)
def test_no_setting_of_a_command_takes_what_is_not_its_kind(command: str) -> None:
    settings = base(command)
    sections = {key: value for key, value in settings.items() if not (isinstance(value, dict) and "_target_" in value)}
    values = {keys: impossible(keys[-1], value) for keys, target, value in _values(sections, (), "") if not target}
    assert values
    assert accepted(settings, JOBS[command].section, values) == []


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("+evalutions=5", "evaluations"),
        ("+agent.agent.hiden=[3]", "agent.agent.hidden"),
        ("+agent.agent.experience.episods=3", "agent.agent.experience.episodes"),
        ("+agent.agent.hyperparameters.batchsize=3", "agent.agent.hyperparameters.batch_size"),
        ("+structure.roundto=3", "structure.round_to"),
        ("+round_to=3", "structure.round_to"),
        ("+evaluation.race.frist=0.3", "evaluation.race.first"),
        ("+costs.weightbits=8", "costs.weight_bits"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest(override: str, key: str) -> None:
    (sentence,) = wrong("search", override)
    assert sentence == f"{override[1:].partition('=')[0]} is no setting; did you mean {key}?"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["evalutions=5"], "evalutions is no setting; did you mean evaluations?"),
        (["agent.agent.hiden=3"], "agent.agent.hiden is no setting; did you mean agent.agent.hidden?"),
        (["seed=0,1", "evalutions=5"], "evalutions is no setting; did you mean evaluations?"),
        (["recover=none", "recover.steps=5"], "recover.steps is no setting; no_recovery has none"),
        (["hydra.runn.dir=x"], "hydra.runn.dir is no setting of Hydra; did you mean hydra.run.dir?"),
        (["schedule=cubic"], "schedule is no setting of this command; it has "),
        (["agent=sa"], "agent=sa is no file of conf/agent; did you mean sac?"),
        (["budget=[a"], "the override 'budget=[a' cannot be read"),
        (["agent=ppo", "agent.env.levels=4"], "agent.env.levels stands in no file of this configuration; add it: +"),
    ],
)
def test_what_hydra_cannot_compose_is_one_sentence(overrides: list[str], sentence: str) -> None:
    job = JOBS["search"]
    with pytest.raises(HydraException) as refused:
        composed(job.name, [override.replace("seed=0,1", "seed=0") for override in overrides])
    text = sentence_of(refused.value, overrides, job.name, job.section)
    assert text.startswith(sentence)
    assert "\n" not in text


@pytest.mark.parametrize("override", ["agent=5", "agent=true", "agent=null", "data=null", "device=null", "score=1.5"])
def test_a_group_is_chosen_by_the_name_of_a_file(override: str) -> None:
    with pytest.raises(ValueError, match=override.partition("=")[0]) as refused:
        check_choices(["seed=0", override])
    assert override.partition("=")[2] in str(refused.value)
    check_choices(["agent=sac", "seed=5", "agent.agent.critics=null", "task=digits,table_plain", "policy=null"])


def own_target(
    width: int,
    *,
    name: str = "a",
    share: float | None = None,
    sizes: "dict[str, int] | None" = None,
    other=None,  # type: ignore[no-untyped-def]
) -> None:
    """As a person writes it."""


def open_target(width: int, **options: Any) -> None:
    """Takes any key."""


def unresolved(width: "NoSuchType") -> None:  # type: ignore[name-defined]  # noqa: F821
    """Its hints cannot be resolved."""


class Only(Section):
    """One part."""

    task: Described


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"width": 5}, None),
        ({"width": 5, "share": 1, "sizes": {"train": 3}, "other": [{"a": object}]}, None),
        ({"width": "5"}, "task.width must be an integer"),
        ({"width": 5, "share": "abc"}, "task.share must be a number or null"),
        ({"width": 5, "sizes": {"train": "x"}}, "task.sizes.train must be an integer"),
        ({"width": 5, "nam": "b"}, "task.nam is no setting; did you mean task.name?"),
        ({}, "task.width is missing, without which there is no own_target"),
        ({"_target_": f"{TARGETS}.open_target", "width": 5, "anything": 1}, None),
        ({"_target_": f"{TARGETS}.open_target", "width": True}, "task.width must be an integer"),
        ({"_target_": f"{TARGETS}.unresolved", "width": "anything"}, None),
        ({"_target_": f"{TARGETS}.nothing"}, f"task._target_={TARGETS}.nothing cannot be imported"),
        ({"_target_": 5}, "task must be the name of a function"),
        ({"width": {"_target_": f"{TARGETS}.open_target", "width": 2}}, None),
        ({"width": {"_target_": f"{TARGETS}.open_target"}}, "task.width.width is missing"),
    ],
)
def test_a_target_of_ones_own_is_checked_by_its_signature(settings: dict[str, Any], sentence: str | None) -> None:
    node = {"_target_": f"{TARGETS}.own_target", **settings}
    if sentence is None:
        check({"task": node}, Only, Rules(), command="")
        return
    with pytest.raises(SettingsError) as refused:
        check({"task": node}, Only, Rules(), command="")
    assert str(refused.value).startswith(sentence)


def test_what_the_chosen_file_set_for_another_target_is_said_at_once_with_how_it_is_left_out() -> None:
    node = {"_target_": f"{TARGETS}.own_target", "width": 3, "heigth": 1, "env": {"levels": 3}, "widht": 2}
    with pytest.raises(SettingsError) as refused:
        check({"task": node}, Only, Rules(), command="", overrides=["task._target_=x", "+task.widht=2"])
    left, own = str(refused.value).splitlines()
    assert "takes no heigth, env" in left
    assert left.endswith("leave them out: '~task.heigth' '~task.env'")
    assert own == "task.widht is no setting; did you mean task.width?"


def test_an_object_of_another_class_is_refused() -> None:
    race = {"_target_": "autoprune.evaluation.race.Race", "first": 0.1, "growth": 2.0, "errors": 3.0}
    settings = {**base("search")}
    repair = {"_target_": "autoprune.repair.repair.Repair", "batch_norm": True, "least_squares": race}
    settings["repair"] = repair
    with pytest.raises(SettingsError, match=r"repair\.least_squares.*LeastSquares.*Race"):
        check(settings, JOBS["search"].section, RULES, command="")


def test_what_calls_a_part_passes_is_no_setting() -> None:
    (sentence,) = wrong("search", "+reward.score=1")
    assert sentence.startswith("reward.score is no setting")


@pytest.mark.parametrize("override", ["evalutions=5", "evaluations=abc"])
def test_a_wrong_setting_of_the_command_is_answered_before_torch_is_imported(override: str) -> None:
    code = f"import sys; sys.argv = ['autoprune', 'search', {override!r}]; sys.modules['torch'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}from autoprune.cli import main; main()"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "evaluations" in done.stderr
    assert "Traceback" not in done.stderr
