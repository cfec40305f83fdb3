"""Finds the groups of a transformer, from a table of where each model type keeps its parts. Nothing is traced."""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.structure.block_sparse import is_causal
from autoprune.structure.experts import countable_experts
from autoprune.structure.families import FAMILIES, Experts, Family, blocks_name, model_type
from autoprune.structure.groups import (
    Attribute,
    Comparison,
    Granularity,
    Group,
    IntArray,
    Layer,
    Member,
    Pattern,
    RoundTo,
    Routing,
    Skip,
    Structure,
    holds,
    levels_of,
)
from autoprune.structure.kinds import DEFAULT_KINDS, KEY_BLOCK, KEYS, check_kinds, n_m

ALIGNED = 8  # neurons: torch multiplies groups of rows by several matrices in steps of 16 bytes


def token_ids(example_input: Any) -> Tensor | None:
    """The tokens [1, T] among what a transformer is called with, by name or as the first of several; None without."""
    if isinstance(example_input, Mapping):
        example_input = example_input.get("input_ids")
    elif isinstance(example_input, tuple | list):
        example_input = example_input[0]
    whole = isinstance(example_input, Tensor) and example_input.ndim == 2 and not example_input.is_floating_point()
    return example_input if whole else None


def transformer_structure(
    model: nn.Module,
    example_input: Tensor,
    *,
    prune: tuple[str, ...] = DEFAULT_KINDS,
    keep: frozenset[str] = frozenset(),
    round_to: RoundTo = 1,
    min_units: int = 1,
) -> Structure:
    """The groups of the kinds in `prune`, block by block, and the geometry of all layers.

    Args:
        model: A Hugging Face transformer of FAMILIES, in eval mode.
        example_input: [1, T] token ids; costs are counted for one window of T tokens. It may be on the meta device.
        prune: The kinds of groups.
        keep: Qualified names of layers and modules that lose nothing.
        round_to: Entries that neurons and single weights are kept in multiples of; heads and blocks of keys go one by
            one. "auto" rounds neurons only.
        min_units: The fewest units that a group of neurons or single weights keeps, at least 1.

    Raises:
        ValueError: FAMILIES lacks the model type, a kind is unknown, or kinds exclude each other.
    """
    kind = model_type(model)
    if kind is None or kind not in FAMILIES:
        raise ValueError(f"models of type {kind!r} are not supported; the types that are: {sorted(FAMILIES)}")
    check_kinds(prune)
    family = FAMILIES[kind]
    listed = blocks_name(model, family)
    children = model.get_submodule(listed).named_children()
    blocks = [_Block(f"{listed}.{name}", block, family, index) for index, (name, block) in enumerate(children)]
    layers = _layers(model, blocks, example_input)
    groups = [
        group
        for block in blocks
        for kind in prune
        for group in _groups(block, kind, tokens=example_input.shape[1], round_to=round_to, min_units=min_units)
    ]
    unprunable: dict[str, str] = {}
    for name in keep:
        touched = [g for g in groups if any(g.touches(x.name) for x in layers if holds(name, x.name))]
        unprunable |= {group.name: f"task.keep names {name}" for group in touched}
    groups = [group for group in groups if group.name not in unprunable]
    if not groups:
        raise ValueError(f"nothing in this {kind} model can be pruned by structure.prune={list(prune)}: {unprunable}")
    counted = sum(
        layer.outputs * (layer.inputs * layer.kernel + layer.bias)
        for layer in layers
        if layer.kind not in ("attention", "other")
    )
    total = sum(parameter.numel() for parameter in model.parameters())
    return Structure(tuple(groups), layers, unprunable, total - counted, stages=tuple(block.name for block in blocks))


class _Block:
    """One transformer block and the names of its parts."""

    def __init__(self, name: str, module: nn.Module, family: Family, index: int) -> None:
        self.name, self.module, self.family, self.index = name, module, family, index
        self.attention = module.get_submodule(family.attention)
        self.head_dim = int(getattr(self.attention, family.head_dim))
        query = self.linear(family.projections[0])
        fused = len(family.projections) == 1
        self.heads = query.out_features // self.head_dim // (3 if fused else 1)
        self.key_heads = self.heads if fused else self.linear(family.projections[1]).out_features // self.head_dim
        own = dict(module.named_modules())
        self.experts = family.experts if family.experts is not None and family.experts.module in own else None

    @property
    def matrices(self) -> tuple[str, ...]:
        """The linear layers, experts apart."""
        family = self.family
        ffn = () if self.experts else (*family.ffn_inputs, family.ffn_output)
        return (*family.projections, family.attention_output, *ffn)

    def linear(self, part: str) -> nn.Linear:
        layer = self.module.get_submodule(part)
        if not isinstance(layer, nn.Linear):
            raise ValueError(
                f"{self.of(part)} is a {type(layer).__name__}, not an nn.Linear; load the model by "
                "autoprune.task.huggingface, which turns it into one"
            )
        return layer

    def of(self, part: str) -> str:
        return f"{self.name}.{part}"


def _groups(block: _Block, kind: str, *, tokens: int, round_to: RoundTo, min_units: int) -> Iterator[Group]:
    family = block.family
    match kind:
        case "heads":
            yield _heads(block)
        case "queries":
            if block.heads > block.key_heads:
                yield _queries(block)
        case _ if keys := KEYS.fullmatch(kind):
            yield _keys(block, tokens=tokens, size=int(keys[1] or KEY_BLOCK))
        case "experts":
            if block.experts is not None:
                yield _experts(block, block.experts)
        case "neurons" if block.experts is not None:
            yield _neurons_of_experts(block, block.experts, round_to=round_to, min_units=min_units)
        case "neurons":
            members = [_plain(block.of(part), "out", block.linear(part).out_features) for part in family.ffn_inputs]
            units = block.linear(family.ffn_output).in_features
            members.append(_plain(block.of(family.ffn_output), "in", units))
            levels = levels_of(units, round_to=round_to, min_units=min_units)
            yield Group(block.of(family.ffn), "neuron", units, tuple(members), levels)
        case "attention" | "ffn":
            parts = family.skip_attention if kind == "attention" else family.skip_ffn
            name = block.of(family.attention if kind == "attention" else family.ffn)
            yield _depth(f"{name}.skip", tuple(Skip(block.of(part), returns) for part, returns in parts))
        case "blocks":
            yield _depth(f"{block.name}.skip", (Skip(block.name, "input"),))
        case _:
            for part in block.matrices:
                yield _matrix(block.of(part), block.linear(part).in_features, kind, round_to, min_units)


def _heads(block: _Block) -> Group:
    """Key heads with the query heads that read them; where each has its own, simply heads."""
    family, width = block.family, block.head_dim
    keys = np.arange(block.key_heads * width).reshape(block.key_heads, width)
    queries = np.arange(block.heads * width).reshape(block.key_heads, -1)
    if len(family.projections) == 1:  # queries, keys and values one after the other
        outs = [(family.projections[0], np.concatenate([keys + part * keys.size for part in range(3)], axis=1))]
    else:
        outs = list(zip(family.projections, (queries, keys, keys), strict=True))
    members = (
        *(Member(block.of(part), "out", positions, positions.size) for part, positions in outs),
        Member(block.of(family.attention), "out", queries, queries.size),
        Member(block.of(family.attention_output), "in", queries, queries.size),
    )
    sizes = [(name, 1 if counted == "head" else width) for name, counted in family.sizes]
    attributes = tuple(Attribute(block.of(family.attention), name, per_unit) for name, per_unit in sizes)
    levels = tuple(range(1, block.key_heads + 1))
    return Group(block.of(family.attention), "head", block.key_heads, members, levels, attributes)


def _queries(block: _Block) -> Group:
    """One query head of every key head: what is left has equally many of them for each."""
    family, each = block.family, block.heads // block.key_heads
    by_key_head = np.arange(block.heads * block.head_dim).reshape(block.key_heads, each, block.head_dim)
    positions = by_key_head.transpose(1, 0, 2).reshape(each, -1)
    members = (
        Member(block.of(family.projections[0]), "out", positions, positions.size),
        Member(block.of(family.attention), "out", positions, positions.size),
        Member(block.of(family.attention_output), "in", positions, positions.size),
    )
    if family.ratio is None:
        raise ValueError(f"{block.name} has {block.heads} query and {block.key_heads} key heads, but no name for that")
    attributes = (Attribute(block.of(family.attention), family.ratio, 1),)
    name = f"{block.of(family.attention)}.queries"
    return Group(name, "query", each, members, tuple(range(1, each + 1)), attributes)


def _keys(block: _Block, *, tokens: int, size: int) -> Group:
    """The blocks of keys that every block of queries sees, in an order of the layer's own."""
    module = block.of(block.family.attention)
    units = -(-tokens // size)
    if units < 2:
        raise ValueError(
            f"structure.prune=keys:{size}: texts of {tokens} tokens are one block of keys, which leaves no choice; "
            f"take blocks of at most {tokens - 1} tokens, such as keys:{max(1, tokens // 8)}"
        )
    pattern = Pattern(module, tokens, size, is_causal(block.attention), seed=block.index)
    return Group(f"{module}.keys", "key_block", units, (), tuple(range(1, units + 1)), patterns=(pattern,))


def _experts(block: _Block, experts: Experts) -> Group:
    """Whole experts with the router's rows; as many are left as every token is handed to."""
    module, router = block.of(experts.module), block.of(experts.router)
    units = block.module.get_submodule(experts.module).get_parameter(experts.output).shape[0]
    names = [(router, "weight/0"), (module, f"{experts.inputs}/0"), (module, f"{experts.output}/0")]
    top_k = int(block.module.get_submodule(experts.router).top_k)  # type: ignore[arg-type]
    return Group(
        f"{module}.whole", "expert", units, tuple(_plain(layer, axis, units) for layer, axis in names),
        tuple(range(top_k, units + 1)), (Attribute(module, "num_experts", 1), Attribute(router, "num_experts", 1)),
        routing=Routing(router, module, top_k),
    )  # fmt: skip


def _neurons_of_experts(block: _Block, experts: Experts, *, round_to: RoundTo, min_units: int) -> Group:
    """One neuron of every expert: their tensors are those of all experts, which stay equally wide."""
    module = block.of(experts.module)
    units = block.module.get_submodule(experts.module).get_parameter(experts.output).shape[2]
    both = np.arange(2 * units).reshape(2, units).T
    members = (Member(module, f"{experts.inputs}/1", both, both.size), _plain(module, f"{experts.output}/2", units))
    step = ALIGNED if round_to == "auto" else math.lcm(round_to, ALIGNED)
    levels = levels_of(units, round_to=step, min_units=min_units)
    return Group(module, "neuron", units, members, levels, (Attribute(module, "intermediate_dim", 1),))


def _depth(name: str, skips: tuple[Skip, ...]) -> Group:
    return Group(name, "block", 1, (), (0, 1), skips=skips)


def _matrix(name: str, inputs: int, kind: str, round_to: RoundTo, min_units: int) -> Group:
    granularity: Granularity
    if kind == "weights":
        granularity, size = "weight", inputs
        levels = levels_of(inputs, round_to=1 if round_to == "auto" else round_to, min_units=min_units)
    else:
        kept, size = n_m(kind)
        granularity, levels = "n_m", (kept, size)
        if inputs % size:
            raise ValueError(f"structure.prune={kind} needs inputs in multiples of {size}, but {name} has {inputs}")
    return Group(name, granularity, size, (), levels, compared=(Comparison(name, size),))


def _layers(model: nn.Module, blocks: list[_Block], example_input: Tensor) -> tuple[Layer, ...]:
    """Linear layers in order of execution, the attentions among them, and what else in the blocks has parameters."""
    rows = _rows(model, example_input)
    tokens = example_input.shape[1]
    layers = [
        Layer(name, "linear", layer.out_features, layer.in_features, 1, count, 1, layer.bias is not None, False)
        for name, (layer, count) in rows.items()
    ]
    for block in blocks:
        output = block.of(block.family.attention_output)
        index = next(index for index, layer in enumerate(layers) if layer.name == output)
        features = block.heads * block.head_dim
        layers.insert(
            index,
            Layer(block.of(block.family.attention), "attention", features, 2 * tokens, 1, tokens, 1, False, False),
        )
        routed = (block.experts.module, block.experts.router) if block.experts else ()
        layers += [Layer(block.of(name), "other", 1, 1, 1, tokens, 1, False, False) for name in routed]
        for name, module in block.module.named_modules():
            own = {} if name in routed else dict(module.named_parameters(recurse=False))
            if own and not isinstance(module, nn.Linear):
                if not own.keys() <= {"weight", "bias"} or any(p.ndim != 1 for p in own.values()):
                    raise ValueError(
                        f"{block.of(name)}, a {type(module).__name__}, has parameters that cannot be counted"
                    )
                size = next(iter(own.values())).numel()
                layers.append(Layer(block.of(name), "norm", size, int("weight" in own), 1, 0, 1, "bias" in own, False))
    return tuple(layers)


def _rows(model: nn.Module, example_input: Tensor) -> dict[str, tuple[nn.Linear, int]]:
    """Every linear layer that runs, in order, with the rows that it computes for the example."""
    rows: dict[str, tuple[nn.Linear, int]] = {}

    def record(name: str, layer: nn.Linear, _: object, output: Tensor) -> None:
        count = output.numel() // layer.out_features
        rows[name] = (layer, count + (rows[name][1] if name in rows else 0))

    with ExitStack() as hooks, torch.no_grad(), countable_experts(model):
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Linear):
                hooks.enter_context(layer.register_forward_hook(partial(record, name)))
        model(example_input)
    return rows


def _plain(layer: str, axis: str, units: int) -> Member:
    positions: IntArray = np.arange(units)[:, None]
    return Member(layer, axis, positions, units)
