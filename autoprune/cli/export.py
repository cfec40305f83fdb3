"""`autoprune export RUN format=…`: a finished run's network in another file format."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from autoprune.cli.arguments import read_arguments
from autoprune.cli.session import announced_in_terminal, run_command
from autoprune.cli.validation import Section

if TYPE_CHECKING:
    from autoprune.export.pretrained_folder import WrittenNetwork

USAGE = """usage: autoprune export RUN format=apz|gguf|hf [out=PATH] [layout=auto|stock|padded|blocks]

A finished run's network in another format, in RUN/network unless out= says where. format=apz: one small file, in which
zeros and shared values take next to no room (docs/format.md); autoprune.load reads it. format=hf: a folder with
config.json, safetensors and tokenizer, which plain transformers loads where one configuration describes all blocks
(layout=stock, or padded with zeros), and else with the sizes of every block (layout=blocks; docs/after_pruning.md).
format=gguf: one file for llama.cpp, in the same layouts."""


class ExportSettings(Section):
    """What is written KEY=VALUE."""

    format: Literal["apz", "gguf", "hf"] | None = None
    out: str | None = None
    layout: Literal["auto", "stock", "padded", "blocks"] | None = None


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
    with announced_in_terminal("writing the network"):
        written = FORMATS[settings["format"]](Path(others[0]), out, settings["layout"])
    print(written)


def _apz(run: Path, out: Path | None, layout: str | None) -> str:
    from autoprune.export.apz import APZ_SUFFIX, write_apz
    from autoprune.export.network import WEIGHTS_FILE, network_folder, read_network

    if layout is not None:
        raise ValueError(f"layout={layout} is for format=hf and format=gguf; format=apz has one layout")
    folder = network_folder(run)
    record, state = read_network(folder)
    path = folder / f"network{APZ_SUFFIX}" if out is None else out
    size, stored = write_apz(path, record, state), (folder / WEIGHTS_FILE).stat().st_size
    return f"{path}: {size:,} bytes, {size / stored:.1%} of {WEIGHTS_FILE}"


def _hf(run: Path, out: Path | None, layout: Any) -> str:
    from autoprune.export.pretrained_folder import write_pretrained_folder

    written, sizes = _language_model(write_pretrained_folder, "hf", run, out, layout)
    loads = (
        "sizes of every block, which plain transformers does not read (docs/after_pruning.md; layout=padded does)"
        if written.layout == "blocks"
        else f'transformers loads it: from_pretrained("{written.path}")'
    )
    return f"{sizes}; {loads}"


def _gguf(run: Path, out: Path | None, layout: Any) -> str:
    from autoprune.export.gguf_file import BY_BLOCKS, write_gguf

    written, sizes = _language_model(write_gguf, "network.gguf", run, out, layout)
    blocks = f"; architecture {BY_BLOCKS}, of which every block has its own sizes" if written.layout == "blocks" else ""
    return f"{sizes}, {written.path.stat().st_size:,} bytes{blocks}"


def _language_model(
    write: "Callable[..., WrittenNetwork]", name: str, run: Path, out: Path | None, layout: str | None
) -> "tuple[WrittenNetwork, str]":
    """Writes the run's network, and says where, in which layout and how large."""
    from autoprune.export.network import TOKENIZER_FOLDER, load_network, network_folder, read_record

    folder = network_folder(run)
    if read_record(folder).get("architecture") is None:
        raise ValueError(
            f"format=hf and format=gguf are for language models of conf/task, and {run} is of a task of your own; "
            "format=apz takes any network. In Python, autoprune.load(RUN, model=YOUR_DENSE_MODULE) returns it, and "
            "write_pretrained_folder and write_gguf of autoprune.export write it where it is a transformers model"
        )
    tokenizer = folder / TOKENIZER_FOLDER
    written = write(
        load_network(folder),
        folder / name if out is None else out,
        layout=layout or "auto",
        tokenizer=tokenizer if tokenizer.is_dir() else None,
    )
    zeros = f", {written.zeros:,} of them zeros that fill up narrower blocks" if written.zeros else ""
    return written, f"{written.path}: layout={written.layout}, {written.params:,} parameters{zeros}"


FORMATS: Mapping[str, Callable[[Path, Path | None, str | None], str]] = {"apz": _apz, "gguf": _gguf, "hf": _hf}
"""Format → (run, file or folder to write, layout) → what to say."""
