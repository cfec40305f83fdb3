"""A pruned language model as one GGUF file, the format of llama.cpp, by the `gguf` package that comes from there."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.export.pretrained_folder import Layout, WrittenNetwork, stock_or_none
from autoprune.files import atomic_write
from autoprune.structure.families import blocks_name, model_type
from autoprune.structure.stock_network import BlockSizes, block_sizes, family_of
from autoprune.task.weights import untied

if TYPE_CHECKING:
    import gguf

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
"""A type of transformers → the name of its architecture in GGUF."""
BY_BLOCKS = "deci"
"""The architecture whose blocks each have their own sizes; otherwise it is `llama`."""
INTERLEAVED = (BY_BLOCKS, "llama")
"""Architectures that turn neighbouring rows by their rotary positions; transformers turns row i with i + width / 2."""
LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS = {rf"{LETTERS}|\p{{N}}{{1,3}}{REST}": "llama-bpe", rf"{LETTERS}|\p{{N}}{REST}": "qwen2"}
"""A tokenizer's regular expression → the name that llama.cpp has for it."""


def write_gguf(
    network: nn.Module, path: Path, *, layout: Layout = "auto", tokenizer: Path | None = None
) -> WrittenNetwork:
    """Writes the network as one GGUF file in its own precision, and returns in which layout.

    Every tensor is read back by gguf's reader and compared before the file stands.

    Args:
        network: A pruned decoder of a type in ARCHITECTURES; it stays as it is.
        path: Must not exist yet.
        layout: As for `write_pretrained_folder`. "blocks" gives every block its heads and neurons, 0 for none: only
            Llama and Mistral have such an architecture.
        tokenizer: A folder with `tokenizer.json`. Without it the file says that it has no vocabulary.

    Raises:
        ImportError: The extra `llm` is not installed.
        ValueError: The type, its positions or the layout cannot be written, or something else was read back.
        FileExistsError: The file exists.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ImportError(
            "format=gguf needs the package gguf, which the extra llm brings: pip install 'autoprune[llm]'"
        )
    kind = model_type(network)
    if kind not in ARCHITECTURES or not hasattr(network, "lm_head"):
        raise ValueError(
            f"a {type(network).__name__} is not written as GGUF; causal language models of these types are: "
            f"{sorted(ARCHITECTURES)}. Export it with format=hf"
        )
    if path.exists():
        raise FileExistsError(f"{path} exists already; give another file by out=, or remove it")
    stock, chosen = stock_or_none(network, layout)
    architecture = ARCHITECTURES[kind]
    if stock is None:
        if architecture != "llama":
            raise ValueError(
                f"GGUF has no {kind} whose blocks differ in size; export it with layout=padded, which adds zeros"
            )
        architecture = BY_BLOCKS
    written: Any = network if stock is None else stock
    tensors = dict(_tensors(written, architecture))
    with atomic_write(path) as partial:
        _write(partial, written, architecture, tensors, tokenizer)
        _check(partial, tensors)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (network, written)]
    return WrittenNetwork(path, chosen, sizes[1], max(0, sizes[1] - sizes[0]))


def rotary_order(weight: Tensor, heads: int, *, back: bool = False) -> Tensor:
    """Returns the rows of a query or key projection as llama.cpp turns them: row i beside row i + width / 2.

    Args:
        weight: [heads · width, …].
        heads: How many heads the rows are of.
        back: From that order to transformers' own.
    """
    halves = (heads, -1, 2) if back else (heads, 2, weight.shape[0] // heads // 2)
    return weight.reshape(*halves, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def _tensors(network: nn.Module, architecture: str) -> Iterator[tuple[str, Tensor]]:
    """GGUF's names and the tensors; blocks are numbered in order."""
    import gguf

    family, sizes = family_of(network), block_sizes(network)
    numbers = {str(size.index): number for number, size in enumerate(sizes)}
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[architecture], len(sizes))
    listed = f"{blocks_name(network, family)}."
    heads = dict(zip(family.projections[:2], ("queries", "keys"), strict=False))
    for name, tensor in untied(network.state_dict()).items():
        if name.startswith(listed):
            number, _, part = name.removeprefix(listed).partition(".")
            name, size = f"{listed}{numbers[number]}.{part}", sizes[numbers[number]]
            projection = heads.get(part.rpartition(".")[0])
            if projection and architecture in INTERLEAVED:
                tensor = rotary_order(tensor, size.key_heads * (size.queries if projection == "queries" else 1))
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if gguf_name is None:
            raise ValueError(f"GGUF's {architecture} has no tensor for {name}; export the network with format=hf")
        yield gguf_name, tensor.detach().cpu().float() if tensor.ndim == 1 else tensor.detach().cpu()


def _write(path: Path, network: Any, architecture: str, tensors: dict[str, Tensor], tokenizer: Path | None) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    try:
        _write_sizes(writer, network, block_sizes(network), by_blocks=architecture == BY_BLOCKS)
        if tokenizer is None:
            writer.add_tokenizer_model("no_vocab")
        else:
            _write_vocabulary(writer, tokenizer, network.config.vocab_size)
        for name, tensor in tensors.items():
            if tensor.dtype == torch.bfloat16:  # NumPy has no such type: its bytes as they are
                raw = tensor.contiguous().view(torch.uint8).numpy()
                writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
            else:
                writer.add_tensor(name, tensor.contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _write_sizes(writer: "gguf.GGUFWriter", network: Any, sizes: list[BlockSizes], *, by_blocks: bool) -> None:
    config, family = network.config, family_of(network)
    rotary = getattr(config, "rope_parameters", None) or {}
    if rotary.get("rope_type", "default") != "default":
        raise ValueError(
            f"rotary positions of type {rotary['rope_type']!r} are not written as GGUF, only the default ones; "
            "export the network with format=hf"
        )
    blocks = network.get_submodule(blocks_name(network, family))
    width = next(
        (int(getattr(blocks[s.index].get_submodule(family.attention), family.head_dim)) for s in sizes if s.key_heads),
        0,
    )
    heads = [size.key_heads * size.queries for size in sizes]
    for add, values in (
        (writer.add_head_count, heads),
        (writer.add_head_count_kv, [size.key_heads for size in sizes]),
        (writer.add_feed_forward_length, [size.neurons for size in sizes]),
    ):
        add(values if by_blocks else values[0])
    writer.add_block_count(len(sizes))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_vocab_size(config.vocab_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(rotary.get("rope_theta", 10_000.0)))
    if width:
        writer.add_rope_dimension_count(width)
        writer.add_key_length(width)
        writer.add_value_length(width)
    if getattr(config, "sliding_window", None) is not None:
        writer.add_sliding_window(config.sliding_window)


def _write_vocabulary(writer: "gguf.GGUFWriter", folder: Path, size: int) -> None:
    """Tokens, merges, special tokens and chat template, by gguf's own readers of Hugging Face's files."""
    import gguf

    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary: Any = None
    for reader in (gguf.vocab.BpeVocab, gguf.vocab.LlamaHfVocab):
        try:
            vocabulary = reader(folder)
            break
        except (FileNotFoundError, TypeError):  # how they say: not of this kind
            continue
    if vocabulary is None:
        raise ValueError(
            f"the tokenizer in {folder} is a {content['model']['type']}, which gguf does not read; export the network "
            "with format=hf, and let llama.cpp's own converter read that folder"
        )
    tokens, scores, types = (list(column) for column in zip(*vocabulary.all_tokens(), strict=True))
    if len(tokens) > size:
        raise ValueError(
            f"the tokenizer has {len(tokens)} tokens, the network {size} embeddings; give the tokenizer of it"
        )
    for token in content.get("added_tokens", ()):
        types[token["id"]] = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
    missing = range(len(tokens), size)  # embeddings without a token, as Qwen has them
    writer.add_tokenizer_model(vocabulary.tokenizer_model)
    writer.add_token_list([*tokens, *(f"[PAD{index}]" for index in missing)])
    writer.add_token_scores([*scores, *(-1000.0 for _ in missing)])
    writer.add_token_types([*types, *(gguf.TokenType.UNUSED for _ in missing)])
    split = split_name(content.get("pre_tokenizer")) if vocabulary.tokenizer_model == "gpt2" else "default"
    if split is not None:
        writer.add_tokenizer_pre(split)
    gguf.SpecialVocab(folder, load_merges=vocabulary.tokenizer_model == "gpt2").add_to_gguf(writer, quiet=True)


def split_name(pre_tokenizer: Any) -> str | None:
    """Returns llama.cpp's name of how a byte-level tokenizer splits text before it merges; None: it has none here.

    Args:
        pre_tokenizer: The entry of that name in `tokenizer.json`.
    """
    entries = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer] if pre_tokenizer else [])
    kinds = [entry["type"] for entry in entries]
    if kinds == ["ByteLevel"] and entries[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and entries[0]["individual_digits"] and entries[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not entries[1].get("use_regex", True):
        return SPLITS.get(entries[0]["pattern"].get("Regex", ""))
    return None


def _check(path: Path, tensors: dict[str, Tensor]) -> None:
    """Raises ValueError where gguf's reader finds other tensors than were to be written."""
    read = gguf_tensors(path)
    wrong = sorted(
        name
        for name in tensors.keys() | read.keys()
        if name not in read or name not in tensors or not torch.equal(read[name], tensors[name])
    )
    if wrong:
        raise ValueError(f"what was written to {path.name} reads back with other tensors: {', '.join(wrong[:3])}")


def gguf_tensors(path: Path) -> dict[str, Tensor]:
    """Returns what gguf's reader finds: names and tensors, as they were stored; quantised ones are not read.

    Args:
        path: A file that `write_gguf` wrote.
    """
    import gguf

    tensors = {}
    for tensor in gguf.GGUFReader(path).tensors:
        shape = tensor.shape.tolist()[::-1]
        data = torch.from_numpy(np.array(tensor.data))
        raw = tensor.tensor_type == gguf.GGMLQuantizationType.BF16
        tensors[tensor.name] = (data.view(torch.bfloat16) if raw else data).reshape(shape)
    return tensors
