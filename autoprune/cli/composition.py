"""What Hydra cannot compose, as one sentence that names the nearest thing that it can."""

import contextlib
import re
import shlex
from collections.abc import Sequence
from typing import Any, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf

from autoprune.cli.command_settings import RULES
from autoprune.cli.parts import conf_dir
from autoprune.cli.validation import Section, SettingsError, check
from autoprune.ranges import nearest

OPTIONAL = ("data", "device", "evaluation/training", "experiment")
NO_SUCH_KEY = re.compile(r"Could not override '([^'@]+)'\.\n")
NO_SUCH_GROUP = re.compile(r"Could not override '([^'@]+)'\.\s+No match in the defaults list")


def composed(name: str, overrides: Sequence[str] = (), *, hydra: bool = False) -> dict[str, Any]:
    """The settings of a command, as Hydra composes them.

    Args:
        name: Of the command's file in conf/, such as "config".
        overrides: As on the command line.
        hydra: Whether Hydra's own settings are among them; those are then not resolved.

    Raises:
        HydraException: Where they do not compose.
    """
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(name, overrides=list(overrides), return_hydra_config=hydra)
    settings: Any = OmegaConf.to_container(config, resolve=not hydra)
    return {str(key): value for key, value in settings.items()}


def sentence_of(error: HydraException, overrides: Sequence[str], name: str, section: type[Section]) -> str:
    """What is wrong with the overrides of a command.

    Args:
        error: What Hydra raised.
        overrides: What the command line says.
        name: Of the command's file in conf/, such as "config".
        section: What the command may be told.
    """
    text = str(error).strip()
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        options = [str(option) for option in error.options]
        has = nearest(choice, options) or f"; it has {', '.join(options)}"
        return f"{group}={choice} is no file of conf/{group}{has}"
    if isinstance(error, OverrideParseException):
        key, _, value = str(error.override).partition("=")
        return f"the override {error.override!r} cannot be read; one is written KEY=VALUE, or 'KEY=[VALUE,VALUE]'" + (
            f"; where the value is a text: {hydra_override(key, value)}" if value and key else ""
        )
    if missing := NO_SUCH_GROUP.match(text):  # it is one of another command's
        names = list(get_type_hints(section))
        return (
            f"{missing[1]} is no setting of this command{nearest(missing[1], names) or '; it has ' + ', '.join(names)}"
        )
    if missing := NO_SUCH_KEY.match(text):
        return _no_such_key(missing[1], overrides, name, section)
    return " ".join(text.split())


def hydra_override(key: str, value: object) -> str:
    """KEY=VALUE, quoted for Hydra and for the shell where the value is a text that holds more than plain letters.

    Args:
        key: The setting's full path.
        value: What it is to be, such as a folder.

    >>> print(hydra_override("hydra.run.dir", "/home/jürgen/run=1"))
    "hydra.run.dir='/home/jürgen/run=1'"
    """
    text, parser = f"{value}", OverridesParser.create()
    with contextlib.suppress(HydraException):
        parsed = parser.parse_override(f"{key}={text}")
        if not parsed.is_sweep_override() and parsed.value() == text:
            return shlex.quote(f"{key}={text}")
    quoted = f"{key}=" + "'" + text.replace("\\'", "\\\\'").replace("'", "\\'") + "'"
    return shlex.quote(quoted) if set(quoted) & set('"$`\\') else f'"{quoted}"'


def check_choices(overrides: Sequence[str]) -> None:
    """Of a group, a file is chosen.

    Raises:
        ValueError: For a number, true, false and null.
    """
    for override in overrides:
        key, _, value = override.partition("=")
        number = value.replace(".", "", 1).isdecimal() or value in ("true", "false")
        if value == "null" and key in OPTIONAL:
            raise ValueError(f"{key}=null is what nothing chosen is: leave it out, or take a choice back by ~{key}")
        if (conf_dir() / key).is_dir() and (number or value == "null"):
            files = sorted(path.stem for path in (conf_dir() / key).glob("*.yaml"))
            raise ValueError(f"{key} must be a file of conf/{key}, got {value}; it has {', '.join(files)}")


def _no_such_key(key: str, overrides: Sequence[str], name: str, section: type[Section]) -> str:
    """Composed with the key added, the command's own check says what it might be."""
    if key.startswith("hydra."):
        return f"{key} is no setting of Hydra{nearest(key, _keys(composed(name, hydra=True)['hydra'], 'hydra'))}"
    single = [_single(override) for override in overrides]
    added = [f"+{override}" if override.startswith(f"{key}=") else override for override in single]
    with contextlib.suppress(ConfigCompositionException):
        try:
            check(composed(name, added), section, RULES, command=name, overrides=overrides)
            return f"{key} stands in no file of this configuration; add it: +{key}=VALUE"
        except SettingsError as error:
            for sentence in str(error).splitlines():
                if sentence.startswith(f"{key} "):
                    return sentence
    return f"{key} is no setting{nearest(key, _keys(composed(name), ''))}"


def _single(override: str) -> str:
    """The override, or of a sweep's the first value."""
    parsed = OverridesParser.create().parse_override(override)
    if not parsed.is_sweep_override():
        return override
    key = override.partition("=")[0]
    with contextlib.suppress(Exception):  # of an interval: it has no first value
        return f"{key}={next(parsed.sweep_string_iterator())}"
    return f"{key}=null"


def _keys(settings: Any, inside: str) -> list[str]:
    if not isinstance(settings, dict):
        return [inside]
    return [key for name, value in settings.items() for key in _keys(value, f"{inside}.{name}".removeprefix("."))]
