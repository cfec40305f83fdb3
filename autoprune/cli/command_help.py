"""`autoprune COMMAND --help`: what a command may be told, from its file in conf/ and the comments that stand there."""

import re
import textwrap

import yaml

from autoprune.cli.parts import conf_dir

WIDTH = 120
ENDING = """A choice's settings are those of its file in conf/GROUP: GROUP.KEY=VALUE, such as task.keep=[conv1].
autoprune {command} --cfg job      prints all of them, composed with the overrides beside it
autoprune {command} --hydra-help   what else Hydra takes: sweeps (-m), launchers, folders"""


def command_help(command: str, file: str) -> str:
    """What the command does, its groups with their choices, the default first, and its settings with what they mean.

    Args:
        command: As a person types it, such as train-pruned.
        file: Its name in conf/, such as train_pruned.
    """
    about, groups, settings = _read(file)
    lines = [
        f"usage: autoprune {command} [-m] [GROUP=CHOICE ...] [KEY=VALUE ...]",
        "",
        *about,
        "",
        "Groups, with what they are by default first:",
    ]
    width = max(map(len, groups))
    for group, chosen in groups.items():
        names = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml") if path.stem != chosen)
        text = ", ".join([chosen or "(nothing)", *names])
        first = f"  {group:<{width}}  "
        lines += textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first))
    return "\n".join([*lines, "", "Settings:", "", *settings, "", ENDING.format(command=command)])


def _read(file: str) -> tuple[list[str], dict[str, str | None], list[str]]:
    """The comment that a command's file begins with, its groups with what they are by default, and its other lines."""
    text = (conf_dir() / f"{file}.yaml").read_text(encoding="utf-8")
    before, _, after = text.partition("defaults:\n")
    listed, _, own = after.partition("\n\n")
    groups: dict[str, str | None] = {}
    settings: list[str] = []
    for entry in yaml.safe_load(listed):
        if isinstance(entry, dict):
            groups |= {name.removeprefix("override "): chosen for name, chosen in entry.items()}
        elif entry != "_self_":  # another command's file
            _, groups, settings = _read(entry)
    groups = {name: chosen for name, chosen in groups.items() if not re.search("@|^hydra/", name)}  # Hydra's, and fixed
    settings = [*own.partition("\nhydra:")[0].strip("\n").splitlines(), *([""] if settings else []), *settings]
    return [line.removeprefix("# ") for line in before.strip().splitlines()], groups, settings
