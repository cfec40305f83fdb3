"""Configurations that came with a run folder, which may be somebody else's: nothing in them is resolved or called.

A run's config.yaml names functions (`_target_`) and may hold interpolations (`${oc.env:TOKEN}`). It is read as plain
text and numbers. Where a run goes on, or its task is made again, only targets that autoprune's own conf/ names are
called, and those that the person repeats on the command line, one by one.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from autoprune.cli.parts import conf_dir
from autoprune.cli.renamed import refuse_old_settings
from autoprune.cli.validation import dotted

TARGET = "_target_"


def read_config(path: Path) -> dict[str, Any]:
    """A run's config.yaml, as it is written: interpolations stay text, and no object is made.

    Raises:
        ValueError: Where it is no configuration, or one of an earlier version.
    """
    try:
        config = OmegaConf.load(path)
        settings: Any = OmegaConf.to_container(config, resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no configuration: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} is no configuration: it holds no keys")
    named = {str(key): value for key, value in settings.items()}
    refuse_old_settings(named, where=str(path))
    return named


def trusted_config(
    path: Path, repeated: Collection[str], *, command: str, sections: Collection[str] | None = None
) -> dict[str, Any]:
    """A run's config.yaml, of which objects may be made.

    Args:
        path: The file.
        repeated: Overrides such as `task._target_=my_module.my_task`, which say that this target is trusted.
        command: That the override can be added to.
        sections: Of the file, that are read; None: all.

    Raises:
        ValueError: Where it names another target, holds an interpolation, or is of an earlier version.
    """
    settings = {key: value for key, value in read_config(path).items() if sections is None or key in sections}
    allowed = own_targets()
    unused = set(repeated)
    for keys, value in _leaves(settings, ()):
        name = dotted(keys)
        if isinstance(value, str) and "${" in value:
            raise ValueError(f"{path}: {name} is the interpolation {value!r}, which is not resolved for another's run")
        if keys[-1] != TARGET:
            continue
        override = f"{name}={value}"
        if value not in allowed and override not in repeated:
            ours = value.startswith("autoprune.")
            whose = "not of this version's conf/" if ours else "not autoprune's own"
            raise ValueError(
                f"{path}: {name} is {value!r}, which is {whose}. If you trust it, repeat it: {command} {override}"
            )
        unused.discard(override)
    if unused:
        raise ValueError(f"{path} has no {sorted(unused)[0]}; only targets that stand there can be repeated")
    return settings


def own_command(folder: Path) -> str:
    """What the person who started a run types to go on with it: the targets that were asked for are repeated.

    Args:
        folder: The run's.
    """
    from autoprune.runs import resume_command

    targets: list[str] = []
    with contextlib.suppress(OSError, ValueError):  # going on says what is wrong with it
        leaves = list(_leaves(read_config(folder / "config.yaml"), ()))
        targets = [f"{dotted(keys)}={value}" for keys, value in leaves if keys[-1] == TARGET]
        targets = [target for target in targets if target.partition("=")[2] not in own_targets()]
    return resume_command(folder, targets)


@cache
def own_targets() -> frozenset[str]:
    """The functions and classes that autoprune's conf/ names."""
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in conf_dir().rglob("*.yaml")]
    return frozenset(str(value) for file in files for keys, value in _leaves(file, ()) if keys and keys[-1] == TARGET)


def _leaves(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(keys, value) of everything that is no mapping or list; and of every target, whatever it is."""
    if keys and keys[-1] == TARGET:
        yield keys, value if isinstance(value, str) else str(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if "${" in str(key):
                yield (*keys, str(key)), str(key)
            yield from _leaves(item, (*keys, str(key)))
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from _leaves(item, (*keys, f"[{at}]"))
    else:
        yield keys, value
