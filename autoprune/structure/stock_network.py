"""A pruned transformer as the plain network of its class, which its configuration alone describes."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.structure.block_sparse import patterns_of
from autoprune.structure.families import FAMILIES, Experts, Family, blocks_name, model_type
from autoprune.structure.instance_class import InstanceClass, class_without
from autoprune.structure.skipped_modules import Skipped

PER_BLOCK = ("layer_types", "no_rope_layers")  # entries of configurations that say something of every block


@dataclass(frozen=True, slots=True)
class BlockSizes:
    """What is left of one block. Zero heads or neurons: that sublayer is passed over."""

    index: int
    """In the dense network's list."""
    key_heads: int
    """Of its attention."""
    queries: int
    """For each key head."""
    neurons: int
    """Of the FFN, or of each of its experts."""
    experts: int = 0
    """0: the FFN is none of experts."""


def block_sizes(network: nn.Module) -> list[BlockSizes]:
    """Returns the sizes of the blocks that are left, in order.

    Args:
        network: A transformer of a type in FAMILIES, pruned or not.

    Raises:
        ValueError: It is of another type.
    """
    family = family_of(network)
    children = network.get_submodule(blocks_name(network, family)).named_children()
    return [_sizes(int(name), block, family) for name, block in children if not isinstance(block, Skipped)]


def family_of(network: nn.Module) -> Family:
    """Returns where the network's parts are.

    Raises:
        ValueError: Its type is not in FAMILIES.
    """
    kind = model_type(network)
    if kind is None or kind not in FAMILIES:
        raise ValueError(f"a network of type {kind!r} has no stock form; the types that have: {sorted(FAMILIES)}")
    return FAMILIES[kind]


def stock_network(network: nn.Module, *, pad: bool = False) -> nn.Module:
    """Returns a network of the unpruned class, with the same outputs, that its configuration describes.

    Blocks that were removed whole are left out and the others renumbered; widths that all blocks share are written
    into the configuration. Plain transformers loads what it saves.

    Args:
        network: A pruned transformer; it stays as it is.
        pad: Where blocks differ, all get the largest width, and what is missing is filled with zeros.

    Raises:
        ValueError: No configuration describes it; the sentence says which blocks differ, and what can be done.
    """
    family, config = family_of(network), _config_of(network)
    sizes = block_sizes(network)
    dense_heads = _number(config, "num_attention_heads")
    reasons = _reasons(network, family, sizes, dense_heads=dense_heads, pad=pad)
    if reasons:
        padded = [] if pad else _reasons(network, family, sizes, dense_heads=dense_heads, pad=True)
        raise ValueError(
            f"this {type(network).__name__} has no configuration in transformers: {'; '.join(reasons)}. "
            f"{_ways_out(family, sizes, patterns=bool(patterns_of(network)), pads=not pad and not padded)}"
        )
    wide = BlockSizes(
        0, max(size.key_heads for size in sizes), max(size.queries for size in sizes),
        max((size.neurons for size in sizes if not size.experts), default=0),
    )  # fmt: skip
    if family.free_heads:
        head_dim = _head_dim(network, family, sizes)
        config.head_dim = head_dim if head_dim else getattr(config, "head_dim", None)
        if wide.key_heads:
            config.num_attention_heads, config.num_key_value_heads = wide.key_heads * wide.queries, wide.key_heads
    else:
        wide = BlockSizes(0, dense_heads, 1, wide.neurons)
    if wide.neurons:
        setattr(config, family.ffn_size, wide.neurons)
    for name in PER_BLOCK:
        entries = getattr(config, name, None)
        if entries is not None:
            setattr(config, name, [entries[size.index] for size in sizes])
    config.num_hidden_layers = len(sizes)
    if family.experts is not None:
        _describe_experts(config, family.experts, sizes)
    stock = _plain_network(network, config)
    _fill(stock, network, family, sizes, wide)
    return stock.eval()


def _describe_experts(config: Any, experts: Experts, sizes: list[BlockSizes]) -> None:
    for size in sizes:
        if size.experts:
            setattr(config, experts.count_entry, size.experts)
            setattr(config, experts.width_entry, size.neurons)
    if hasattr(config, "mlp_only_layers"):
        config.mlp_only_layers = [number for number, size in enumerate(sizes) if not size.experts]
        config.decoder_sparse_step = 1


def _config_of(network: nn.Module) -> Any:
    return copy.deepcopy(network.config)


def _sizes(index: int, block: nn.Module, family: Family) -> BlockSizes:
    modules = dict(block.named_modules())
    query, neurons = modules.get(family.projections[0]), modules.get(family.ffn_output)
    key_heads = queries = 0
    if isinstance(query, nn.Linear):
        width = int(getattr(modules[family.attention], family.head_dim))
        if len(family.projections) == 1:
            key_heads, queries = query.out_features // width // 3, 1
        else:
            key = modules[family.projections[1]]
            key_heads = int(key.out_features) // width
            queries = query.out_features // width // key_heads
    passed_over = isinstance(modules.get(family.ffn), Skipped)
    if family.experts is not None and family.experts.module in modules:
        experts, _, width = modules[family.experts.module].get_parameter(family.experts.output).shape
        return BlockSizes(index, key_heads, queries, width, experts)
    width = neurons.in_features if isinstance(neurons, nn.Linear) and not passed_over else 0
    return BlockSizes(index, key_heads, queries, width)


def _reasons(network: nn.Module, family: Family, sizes: list[BlockSizes], *, dense_heads: int, pad: bool) -> list[str]:
    """Why no configuration describes the network."""
    if not sizes:
        return ["no block is left"]
    reasons = ["it sees only some blocks of keys"] if patterns_of(network) else []
    without = [size.index for size in sizes if not size.key_heads or not size.neurons]
    if without and not (pad and family.pre_norm):
        exact = "" if family.pre_norm else ", which normalise behind them, so that zeros would not do"
        reasons.append(f"only the attention or only the FFN was removed from blocks {without}{exact}")
    heads = {(size.key_heads, size.queries) for size in sizes if size.key_heads}
    if not pad and len(heads) > 1:
        reasons.append(f"blocks have {_listed(size.key_heads * size.queries for size in sizes)} heads")
    if not pad and not family.free_heads and heads - {(dense_heads, 1)}:
        reasons.append(f"its heads' width is the hidden size by their number, which was {dense_heads}")
    experts = {(size.experts, size.neurons) for size in sizes if size.experts}
    if len(experts) > 1:
        listed = [f"{count} experts of {neurons} neurons" for count, neurons in sorted(experts)]
        reasons.append(f"blocks have {' and '.join(listed)}, which zeros cannot fill up, as they would be chosen")
    neurons = [size.neurons for size in sizes if size.neurons and not size.experts]
    if not pad and len(set(neurons)) > 1:
        reasons.append(f"blocks have {_listed(neurons)} neurons")
    return reasons


def _ways_out(family: Family, sizes: list[BlockSizes], *, patterns: bool, pads: bool) -> str:
    """In which layouts the network can be exported all the same, and for which plans there is a configuration."""
    ways = []
    if pads:
        ways.append("layout=padded, which fills up narrower blocks with zeros")
    if family.block_layout and sizes and not patterns:
        ways.append("layout=blocks, which gives every block its own sizes")
    export = f"Export it with `autoprune export RUN format=hf` and {', or '.join(ways)}; or prune" if ways else "Prune"
    return f"{export} with structure.prune=[blocks] or [weights] for plans that a configuration describes"


def _listed(values: Any) -> str:
    values = sorted(set(values))
    return " and ".join(map(str, values)) if len(values) < 4 else f"{values[0]} to {values[-1]}"


def _number(config: Any, name: str) -> int:
    return int(getattr(config, name))


def _head_dim(network: nn.Module, family: Family, sizes: list[BlockSizes]) -> int:
    listed = blocks_name(network, family)
    kept = [size.index for size in sizes if size.key_heads]
    return int(getattr(network.get_submodule(f"{listed}.{kept[0]}.{family.attention}"), family.head_dim)) if kept else 0


def _plain_network(network: nn.Module, config: Any) -> nn.Module:
    """A network of the class that the pruned one's was made from, with random weights."""
    kind = class_without(InstanceClass, type(network))
    options = {"add_pooling_layer": False} if getattr(network, "pooler", network) is None else {}
    with torch.random.fork_rng(devices=[]):  # initial weights come from torch's global generator
        stock: nn.Module = kind._from_config(config, **options)
    first = next(network.parameters())
    stock.to(device=first.device, dtype=first.dtype)
    if getattr(network, "generation_config", None) is not None:
        stock.generation_config = copy.deepcopy(network.generation_config)
    return stock


def _fill(stock: nn.Module, network: nn.Module, family: Family, sizes: list[BlockSizes], wide: BlockSizes) -> None:
    """The plain network's tensors hold the pruned one's, and zeros beside them."""
    listed, source = f"{blocks_name(network, family)}.", network.state_dict()
    modules = dict(stock.named_modules())
    with torch.no_grad():
        for name, target in stock.state_dict().items():
            layer, _, kind = name.rpartition(".")
            if type(modules[layer]).__name__ == "Conv1D" and kind == "weight":
                target = target.T
            if not name.startswith(listed):
                target.copy_(source[name])
                continue
            number, _, part = name.removeprefix(listed).partition(".")
            size = sizes[int(number)]
            values = source.get(f"{listed}{size.index}.{part}")
            part = part.rpartition(".")[0]
            if values is None:  # of a sublayer that is passed over, whose norm does not matter
                if part in (*family.projections, family.attention_output, *family.ffn_inputs, family.ffn_output):
                    target.zero_()
                continue
            view = _units_of(target, part, kind, family, wide)
            values = _units_of(values, part, kind, family, size)
            if view.shape == values.shape:
                view.copy_(values)
            else:
                view.zero_()
                view[tuple(slice(length) for length in values.shape)] = values


def _units_of(tensor: Tensor, part: str, kind: str, family: Family, size: BlockSizes) -> Tensor:
    """A view of the tensor whose axes count units: key heads, queries for each, features; neurons as they are."""
    if part == family.attention_output and kind == "weight":
        axis, sizes = 1, [size.key_heads, size.queries, -1]
    elif part not in family.projections:
        return tensor
    elif len(family.projections) == 1:
        axis, sizes = 0, [3, size.key_heads, -1]
    else:
        axis, sizes = 0, [size.key_heads, *([size.queries] if part == family.projections[0] else []), -1]
    view: Tensor = tensor.unflatten(axis, sizes)
    return view
