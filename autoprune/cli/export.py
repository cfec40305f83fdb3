"""`autoprune export RUN format=…`: a finished run's network in another file format."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from autoprune.cli.arguments import read_arguments
from autoprune.cli.session import run_command
from autoprune.cli.validation import Section

USAGE = """usage: autoprune export RUN format=apz [out=FILE]

A finished run's network in another format, in RUN/network unless out= says where. format=apz: one small file, in which
zeros and shared values take next to no room (docs/format.md); autoprune.load reads it."""


class ExportSettings(Section):
    """What is written KEY=VALUE."""

    format: Literal["apz"] | None = None
    out: str | None = None


def export(arguments: Sequence[str]) -> None:
    """Writes the run's network and prints where, and how large it is. Errors are sentences."""
    run_command(lambda: _export(arguments))


def _export(arguments: Sequence[str]) -> None:
    others, settings = read_arguments(arguments, ExportSettings, command="autoprune export")
    if len(others) != 1:
        raise ValueError(f"export needs one run\n{USAGE}")
    if settings["format"] is None:
        raise ValueError(f"export needs a format=, one of {list(FORMATS)}\n{USAGE}")
    out = None if settings["out"] is None else Path(settings["out"])
    print(FORMATS[settings["format"]](Path(others[0]), out))


def _apz(run: Path, out: Path | None) -> str:
    from autoprune.export.apz import APZ_SUFFIX, write_apz
    from autoprune.export.network import WEIGHTS_FILE, network_folder, read_network

    folder = network_folder(run)
    record, state = read_network(folder)
    path = folder / f"network{APZ_SUFFIX}" if out is None else out
    size, stored = write_apz(path, record, state), (folder / WEIGHTS_FILE).stat().st_size
    return f"{path}: {size:,} bytes, {size / stored:.1%} of {WEIGHTS_FILE}"


FORMATS: Mapping[str, Callable[[Path, Path | None], str]] = {"apz": _apz}
"""Format → (run, file or folder to write) → what to say."""
