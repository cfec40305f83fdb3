"""The arguments of commands that Hydra does not compose: folders and texts, and settings as KEY=VALUE."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml

from autoprune.cli.validation import Rules, Section, SettingsError, check


def read_arguments(
    arguments: Sequence[str], section: type[Section], *, command: str
) -> tuple[list[str], dict[str, Any]]:
    """What a command is told.

    Args:
        arguments: Of the command line. What exists as a file or folder is one, whatever its name.
        section: The settings that the command has. One whose type is a tuple may be given several times.
        command: For messages.

    Returns:
        What is no setting, in its order; and the settings, with their defaults.

    Raises:
        SettingsError: For a setting that the command does not have, or a value that it cannot have.
    """
    hints = get_type_hints(section, include_extras=True)
    positional: list[str] = []
    settings: dict[str, Any] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or not name.isidentifier() or Path(argument).exists():
            positional.append(argument)
        elif get_origin(hints.get(name)) is tuple:
            settings.setdefault(name, []).append(text)
        elif name in settings:
            raise SettingsError(f"{name} is given twice, as {settings[name]} and {text}")
        else:
            settings[name] = text if str in (hints.get(name), *get_args(hints.get(name))) else _value(text)
    check(settings, section, Rules(), command=command)
    return positional, {**{name: getattr(section, name) for name in hints}, **settings}


def new_folder(path: Path | None, kind: str) -> Path:
    """The folder, made where it is not there; None: one in runs/ that is named by the time.

    Args:
        path: The folder that was asked for; None: none.
        kind: What the folder is of, such as search.
    """
    now = datetime.now(UTC)
    folder = path or Path("runs") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}_{kind}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
