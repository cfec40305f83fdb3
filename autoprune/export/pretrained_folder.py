"""A pruned language model as a folder that transformers loads, or that engines with sizes of every block read."""

import copy
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from autoprune.files import atomic_write
from autoprune.structure.block_sparse import patterns_of
from autoprune.structure.families import blocks_name
from autoprune.structure.stock_network import BlockSizes, block_sizes, family_of, stock_network
from autoprune.task.copies import copied
from autoprune.task.pretrained import quiet
from autoprune.task.weights import untied

Layout = Literal["auto", "stock", "padded", "blocks"]
CONFIGURATION = "config.json"  # of the dense network, which is not the pruned one's
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf", ".h5", ".onnx", ".pt", ".msgpack")
CHECKED_TOKENS = 8
TOLERANCE = 1e-3  # of outputs that the folder gives, relative to the largest


@dataclass(frozen=True, slots=True)
class WrittenNetwork:
    """What was written."""

    path: Path
    """The folder or the file."""
    layout: Layout
    """As it turned out: never "auto"."""
    params: int
    """Tied weights once."""
    zeros: int
    """Of the parameters, those that fill up narrower blocks."""


def write_pretrained_folder(
    network: nn.Module, folder: Path, *, layout: Layout = "auto", tokenizer: Path | None = None
) -> WrittenNetwork:
    """Writes the network as `config.json` and `model.safetensors`, and returns in which layout.

    A stock or padded folder is read back by transformers, and its outputs compared, before it stands.

    Args:
        network: A pruned transformer of a type in structure.families; it stays as it is.
        folder: Must not exist yet.
        layout: "stock": blocks renumbered, one configuration; "padded": the same, with zeros where blocks are narrower;
            "blocks": the sizes of every block in `block_configs`; "auto": stock where that is possible, else blocks.
        tokenizer: A folder whose tokenizer files are copied beside it.

    Raises:
        ValueError: The network has no such layout, or was not the same when it was read back.
        FileExistsError: The folder exists.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; give another folder by out=, or remove it")
    stock, chosen = stock_or_none(network, layout)
    with atomic_write(folder) as partial, quiet():
        partial.mkdir()
        if stock is None:
            _write_blocks(network, partial)
        else:
            stock.save_pretrained(partial)  # type: ignore[operator]
            _check_read_back(network, stock, partial)
        if tokenizer is not None:
            copy_tokenizer(tokenizer, partial)
    own = _params(network)
    params = own if stock is None else _params(stock)
    return WrittenNetwork(folder, chosen, params, max(0, params - own))


def stock_or_none(network: nn.Module, layout: Layout) -> tuple[nn.Module | None, Layout]:
    """Returns the plain network in that layout, or None for one with sizes of every block; and the layout that it is.

    Args:
        network: A pruned transformer; it stays as it is.
        layout: As for `write_pretrained_folder`.

    Raises:
        ValueError: The network has no such layout.
    """
    stock: nn.Module | None = None
    if layout != "blocks":
        try:
            stock = stock_network(network, pad=layout == "padded")
        except ValueError:
            if layout != "auto" or _no_blocks(network):
                raise
    elif reason := _no_blocks(network):
        raise ValueError(f"{reason}; try layout=padded, or keep it in its run, which autoprune.load reads")
    return stock, "blocks" if stock is None else "stock" if layout == "auto" else layout


def copy_tokenizer(source: Path, folder: Path) -> None:
    """The tokenizer's files lie in the folder, and neither weights nor the configuration of the dense network.

    So does `generation_config.json`, which says where generating ends, and is true of the pruned network too. Where
    the tokenizer does not say of which class it is, a `config.json` that says the model's type alone does.

    Args:
        source: A folder of a Hugging Face model or of its tokenizer.
        folder: Is made where it does not exist; a `config.json` that it has stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.is_file() and file.name != CONFIGURATION and file.suffix not in WEIGHT_SUFFIXES:
            shutil.copy(file, folder / file.name)
    config, settings = source / CONFIGURATION, source / "tokenizer_config.json"
    named = settings.is_file() and "tokenizer_class" in json.loads(settings.read_text(encoding="utf-8"))
    if not named and config.is_file() and not (folder / CONFIGURATION).exists():
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
        (folder / CONFIGURATION).write_text(json.dumps({"model_type": kind}) + "\n", encoding="utf-8")


def block_entries(sizes: Iterable[BlockSizes]) -> list[dict[str, Any]]:
    """Returns `block_configs`: of every block what its attention and its FFN are, `no_op` where it has none."""
    return [
        {
            "attention": {
                "no_op": not size.key_heads,
                "num_attention_heads": size.key_heads * size.queries or None,
                "num_key_value_heads": size.key_heads or None,
                "n_heads_in_group": size.queries or None,
            },
            "ffn": {"no_op": not size.neurons, "intermediate_size": size.neurons or None},
        }
        for size in sizes
    ]


def _no_blocks(network: nn.Module) -> str:
    """Why the sizes of its blocks do not describe the network; empty where they do."""
    kind = type(network).__name__
    if not family_of(network).block_layout:
        return (
            f"a {kind} has no layout with sizes of every block, which engines read for decoders with rotary positions "
            "and without experts only"
        )
    if patterns_of(network):
        return f"this {kind} sees only some blocks of keys, which no layout can say"
    return "" if block_sizes(network) else f"no block of this {kind} is left"


def _write_blocks(network: nn.Module, folder: Path) -> None:
    family, sizes = family_of(network), block_sizes(network)
    config: Any = copy.deepcopy(network.config)
    listed = f"{blocks_name(network, family)}."
    settings = config.to_dict() | {"num_hidden_layers": len(sizes), "block_configs": block_entries(sizes)}
    for name in ("layer_types", "no_rope_layers"):
        if settings.get(name) is not None:
            settings[name] = [settings[name][size.index] for size in sizes]
    settings["architectures"] = [type(network).__name__]
    settings["dtype"] = str(next(network.parameters()).dtype).removeprefix("torch.")
    settings["num_key_value_heads"] = max((size.key_heads for size in sizes), default=0)
    settings["num_attention_heads"] = max((size.key_heads * size.queries for size in sizes), default=0)
    settings["intermediate_size"] = max((size.neurons for size in sizes), default=0)
    numbers = {str(size.index): str(number) for number, size in enumerate(sizes)}
    tensors: dict[str, Tensor] = {}
    for name, tensor in untied(network.state_dict()).items():
        number, dot, part = name.removeprefix(listed).partition(".")
        renamed = f"{listed}{numbers[number]}{dot}{part}" if name.startswith(listed) else name
        tensors[renamed] = tensor.detach().clone().contiguous()
    (folder / CONFIGURATION).write_text(json.dumps(settings, indent=1, default=str) + "\n", encoding="utf-8")
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if getattr(network, "generation_config", None) is not None:
        network.generation_config.save_pretrained(folder)  # type: ignore[union-attr, operator]


def _check_read_back(network: nn.Module, stock: nn.Module, folder: Path) -> None:
    """Raises ValueError where transformers reads another network than was to be written."""
    read = type(stock).from_pretrained(folder, local_files_only=True, dtype=torch.float32)  # type: ignore[attr-defined]
    if next(network.parameters()).dtype != torch.float32:  # whose rounding depends on widths, which zeros change
        network = copied(network).float()
    words: Any = network.get_input_embeddings()  # type: ignore[operator]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(2, words.num_embeddings, (1, CHECKED_TOKENS), generator=generator)
    device = next(network.parameters()).device
    with torch.inference_mode():
        expected, outputs = (model.eval().to(device)(tokens.to(device))[0].float() for model in (network, read))
    if not torch.allclose(outputs, expected, atol=TOLERANCE * float(expected.abs().max())):
        raise ValueError(
            f"what was written gives other outputs than the network, by {float((outputs - expected).abs().max()):.2g}: "
            f"a {type(network).__name__} depends on the numbers of its blocks; use layout=blocks, or autoprune.load"
        )


def _params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
