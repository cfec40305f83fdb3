"""What writing one token takes on this machine: a cost in milliseconds, from measured parts of a decoder's block."""

import copy
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression
from torch import nn

from autoprune.cost.model import FloatArray, plans_along
from autoprune.machine_cache import MeasurementCache
from autoprune.structure.edit import shrink
from autoprune.structure.families import FAMILIES, blocks_name, model_type
from autoprune.structure.groups import Group, IntArray, Structure, holds
from autoprune.structure.stock_network import PER_BLOCK, block_sizes
from autoprune.structure.transformer import transformer_structure
from autoprune.task.pretrained import CAUSAL, linearised

COPY_BYTES = 2**28  # of a copy's blocks, which then fit into no cache, as the network's own do not
COPIED_BLOCKS = 8
VOCABULARY = 8  # of a copy whose blocks are timed: its head takes next to nothing
SIZES = 8  # that are timed of a group
PASSES, TOKENS, WARM_UP = 3, 15, 3
KINDS = {"head": "heads", "query": "queries", "neuron": "neurons"}


@dataclass(frozen=True, slots=True, eq=False)
class DecodeLatency:
    """constant + Σ over the sublayers and blocks that are there of table[units kept], for one text at a time."""

    sizes: IntArray
    """[sublayers]: the group that says how many units each keeps; −1: none."""
    gates: IntArray
    """[sublayers, 2]: the groups that pass it over; −1: none."""
    tables: FloatArray
    """[sublayers, most units + 1] in milliseconds: never falling; of one without such a group, the same everywhere."""
    constant: float
    """Embedding, head and whatever else is outside the blocks, in milliseconds."""
    name: str = "decode"
    """What budgets and reports call the cost."""
    unit: str = "ms"
    """What the cost is counted in."""
    never_falls: bool = True
    """More units never cost less."""

    def __call__(self, kept: IntArray) -> FloatArray:
        kept = np.asarray(kept, np.int64)
        units = np.concatenate([kept, np.ones((*kept.shape[:-1], 1), np.int64)], axis=-1)
        there = units[..., self.gates].prod(axis=-1)
        taken = self.tables[np.arange(len(self.sizes)), units[..., self.sizes]]
        return np.asarray((taken * there).sum(axis=-1) + self.constant, np.float64)

    def along(self, kept: IntArray, group: int, levels: IntArray) -> FloatArray:
        return self(plans_along(kept, group, levels))


def decode_latency(
    model: nn.Module,
    structure: Structure,
    *,
    context: int,
    cache: MeasurementCache,
    clock: Callable[[], float] = time.perf_counter,
) -> DecodeLatency:
    """Measures, or remembers, what each sublayer takes for a token at each size, and what all else takes.

    A few blocks of the network's shape are timed at some sizes, and without their sublayers; between sizes is
    interpolated. What is outside of them is timed with the whole vocabulary. So is the whole dense network, and the
    tables are scaled so that its own cost is what it was measured to take.

    Args:
        model: A decoder that transformers knows, with blocks that are alike.
        structure: Its groups.
        context: Tokens that have been read before, at least 1.
        cache: Remembers what this machine has measured.
        clock: Returns the time in seconds.

    Raises:
        ValueError: The network writes no tokens, its blocks differ, or two groups make one sublayer narrower.
    """
    kind = model_type(model)
    if kind not in CAUSAL or not hasattr(model, "lm_head"):
        this = f"a {type(model).__name__}" if kind is None else f"of type {kind}"
        raise ValueError(f"only decoders write tokens, of the types {list(CAUSAL)}; this network is {this}")
    if FAMILIES[str(kind)].experts is not None:
        raise ValueError(f"decode is not measured for experts, whose time depends on the token; this is a {kind}")
    shapes = {(size.key_heads, size.queries, size.neurons) for size in block_sizes(model)}
    if len(shapes) > 1:
        raise ValueError(f"decode is measured for networks whose blocks are alike; this one has {len(shapes)} kinds")
    sublayers = list(_sublayers(model, structure))
    sized: dict[str, int] = {part.group.granularity: part.group.units for part in sublayers if part.group is not None}
    positions = int(model.config.max_position_embeddings)  # type: ignore[union-attr,arg-type]
    if not 1 <= context < positions:
        raise ValueError(
            f"costs.context={context}: a token behind so many is timed, and the network has {positions} positions"
        )
    parameter: Any = next(model.parameters())
    question = {
        "question": "decode with what is outside",
        "of": hashlib.sha256(model.config.to_json_string().encode()).hexdigest(),  # type: ignore[union-attr,operator]
        "context": context,
        "dtype": str(parameter.dtype),
        "device": str(parameter.device),
        "units": sized,
    }
    answer = cache.get_or_measure(question, partial(_measured, model, sized, context=context, clock=clock))
    widest = max(sized.values(), default=1)
    tables = [_table(answer[part.key], part.group, widest) for part in sublayers]
    sum_of_parts = sum(float(table[-1]) for table in tables)
    inside = float(answer["dense"]) - answer["outside"]
    if inside <= 0:  # so little is done in the blocks that noise hides it
        inside = min(sum_of_parts, answer["dense"])
    scale = inside / sum_of_parts if sum_of_parts > 0 else 0.0
    indices = {group.name: index for index, group in enumerate(structure.groups)}
    return DecodeLatency(
        sizes=np.array([-1 if part.group is None else indices[part.group.name] for part in sublayers], np.int64),
        gates=np.array([[*(indices[g.name] for g in part.gates), -1, -1][:2] for part in sublayers], np.int64),
        tables=scale * np.stack(tables),
        constant=float(answer["dense"]) - scale * sum_of_parts,
    )


@dataclass(frozen=True, slots=True)
class _Sublayer:
    """An attention or an FFN of one block, or what remains of the block without them."""

    kind: str
    """"attention", "ffn" or "shell"."""
    group: Group | None
    """Makes it narrower."""
    gates: tuple[Group, ...]
    """Pass it over."""

    @property
    def key(self) -> str:
        """What its measurements are called."""
        return self.kind if self.group is None else self.group.granularity


def _sublayers(model: nn.Module, structure: Structure) -> Iterator[_Sublayer]:
    family = FAMILIES[str(model_type(model))]
    listed = blocks_name(model, family)
    for name, _ in model.get_submodule(listed).named_children():
        block = f"{listed}.{name}"
        yield _Sublayer("shell", None, _gates(structure, block))
        for kind, module, layer in (
            ("attention", family.attention, family.attention_output),
            ("ffn", family.ffn, family.ffn_output),
        ):
            sizing = [
                group
                for group in structure.groups
                if group.granularity in KINDS and any(member.layer == f"{block}.{layer}" for member in group.members)
            ]
            if len(sizing) > 1:
                names = " and ".join(KINDS[group.granularity] for group in sizing)
                raise ValueError(f"decode is not measured where {names} make one sublayer narrower; leave one out")
            yield _Sublayer(kind, sizing[0] if sizing else None, _gates(structure, f"{block}.{module}"))


def _gates(structure: Structure, module: str) -> tuple[Group, ...]:
    """The groups that pass the module over."""
    return tuple(group for group in structure.groups if any(holds(skip.module, module) for skip in group.skips))


def _measured(model: nn.Module, sized: dict[str, int], *, context: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Milliseconds of the dense network, of each sublayer at some sizes, and of what is outside of them."""
    copied = _copy(model, _few(model), VOCABULARY)
    kinds = tuple(KINDS[granularity] for granularity in sized)
    example = torch.zeros((1, 2), dtype=torch.int64, device=next(model.parameters()).device)
    structure = transformer_structure(copied, example, prune=("attention", "ffn", *kinds))
    family = FAMILIES[str(model_type(model))]
    listed = blocks_name(copied, family)
    blocks = len(copied.get_submodule(listed))  # type: ignore[arg-type]
    ranking = {group.name: torch.arange(group.units) for group in structure.groups}
    skips = {"attention": f".{family.attention}.skip", "ffn": f".{family.ffn}.skip"}

    def seconds(change: str, units: int) -> float:
        """With every group of that granularity, or of that sublayer's depth, keeping so many units."""
        suffix = skips.get(change)
        changed = [g.granularity == change if suffix is None else g.name.endswith(suffix) for g in structure.groups]
        network = shrink(copied, structure, structure.plan(np.where(changed, units, structure.units)), ranking)
        return token_seconds(network, context=context, clock=clock)

    points = {granularity: measured_sizes(units) for granularity, units in sized.items()}
    timed = [("dense", 0), *((kind, 0) for kind in skips), *((name, k) for name in points for k in points[name])]
    whole_networks = {
        "dense": model,
        "outside": _passed_over(_copy(model, 1, model.config.vocab_size)),  # type: ignore[union-attr,arg-type]
        "one shell": _passed_over(_copy(model, 1, VOCABULARY)),
        "shells": _passed_over(copied),
    }
    best: dict[tuple[str, int], float] = {}
    least = dict.fromkeys(whole_networks, float("inf"))
    for _ in range(PASSES):  # what disturbs one pass seldom disturbs the next at the same place
        for name, network in whole_networks.items():
            least[name] = min(least[name], token_seconds(network, context=context, clock=clock))
        for change in timed:
            best[change] = min(best.get(change, float("inf")), seconds(*change))
    shell = max(0.0, least["shells"] - least["one shell"]) / max(1, blocks - 1)
    answer: dict[str, Any] = {"dense": 1e3 * least["dense"], "shell": [[1, 1e3 * shell]]}
    answer["outside"] = 1e3 * max(0.0, least["outside"] - shell)
    whole = best["dense", 0]
    for name, sizes in points.items():
        without = best["ffn" if name == "neuron" else "attention", 0]
        answer[name] = [[k, 1e3 * (best[name, k] - without) / blocks] for k in sizes]
    for kind in skips:
        answer[kind] = [[1, 1e3 * (whole - best[kind, 0]) / blocks]]
    return answer


def measured_sizes(units: int) -> list[int]:
    """The sizes that are timed of a group, ascending: all of a small one, else some that are evenly spaced.

    Args:
        units: What the dense group has, at least 1.
    """
    evenly = np.linspace(units / SIZES, units, SIZES)
    return sorted({*np.unique(np.clip(np.round(evenly), 1, units).astype(int)).tolist(), 1})


def _few(model: Any) -> int:
    """Blocks that are timed together, in place of all."""
    block = model.get_submodule(blocks_name(model, FAMILIES[str(model_type(model))]))[0]
    size = sum(p.numel() * p.element_size() for p in block.parameters())
    return int(max(1, min(COPIED_BLOCKS, model.config.num_hidden_layers, -(-COPY_BYTES // size))))


def _passed_over(model: nn.Module) -> nn.Module:
    """The decoder without any attention and FFN."""
    example = torch.zeros((1, 2), dtype=torch.int64, device=next(model.parameters()).device)
    structure = transformer_structure(model, example, prune=("attention", "ffn"))
    ranking = {group.name: torch.arange(group.units) for group in structure.groups}
    return shrink(model, structure, structure.plan(np.zeros(len(structure.groups), np.int64)), ranking)


def _copy(model: Any, blocks: int, vocabulary: int) -> nn.Module:
    """So many blocks of the network's shape with random weights, behind and before a vocabulary of that size."""
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = blocks
    for name in PER_BLOCK:
        if getattr(config, name, None) is not None:
            setattr(config, name, getattr(config, name)[: config.num_hidden_layers])
    config.vocab_size = vocabulary
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(config, name, 0)
    parameter = next(model.parameters())
    with torch.random.fork_rng(devices=[]):
        copied = type(model)._from_config(config, attn_implementation=model.config._attn_implementation)
    return linearised(copied).to(parameter.device, parameter.dtype).eval()


@torch.inference_mode()
def token_seconds(network: Any, *, context: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """The least seconds that one more token takes.

    Args:
        network: A decoder.
        context: Tokens that it has read before.
        clock: Returns the time in seconds.
    """
    from transformers import DynamicCache

    device = next(network.parameters()).device
    read = torch.ones((1, context), dtype=torch.int64, device=device)
    cache = DynamicCache()
    network(input_ids=read, past_key_values=cache, use_cache=True)
    position = torch.tensor([[context]], device=device)
    best = float("inf")
    for number in range(WARM_UP + TOKENS):
        started = clock()
        logits = network(input_ids=read[:, :1], past_key_values=cache, position_ids=position, use_cache=True).logits
        logits[0, 0, 0].item()  # waits for an accelerator
        if number >= WARM_UP:
            best = min(best, clock() - started)
        cache.crop(-1)
    return best


def _table(points: list[list[float]], group: Group | None, widest: int) -> FloatArray:
    """[widest + 1] milliseconds, never falling: between what was measured, interpolated."""
    units, milliseconds = np.array(points, np.float64).T
    if group is None:
        return np.full(widest + 1, max(0.0, float(milliseconds[-1])))
    rising = IsotonicRegression(y_min=0.0, out_of_bounds="clip").fit_transform(units, milliseconds)
    table = np.interp(np.arange(widest + 1), units, rising)
    return np.asarray(table, np.float64)
