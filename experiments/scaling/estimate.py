"""What a search costs, by arithmetic on a model without weights: exact counts, and stated assumptions."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.cost.budget import parse_budget
from autoprune.cost.observed import NetworkCosts
from autoprune.cost.projection import Projector
from autoprune.prior.uniform_plan import uniform_plan
from autoprune.repair.solver_passes import MOST_COLUMNS
from autoprune.structure.groups import IntArray, Layer, Structure
from autoprune.structure.transformer import transformer_structure
from autoprune.task.huggingface import SUPPORTED, causal_lm, encoder

ENCODERS = ("bert", "roberta", "distilbert")


@dataclass(frozen=True, slots=True)
class SearchSize:
    """A search's size, and the accelerator that it is to run on.

    tokens: T, of one window. judged: positions of it whose next token is compared. windows: of the search samples,
    calibration: windows that scores and least squares are made from, least squares of `rows` tokens at most.
    evaluations: plans that a search judges. levels: of every matrix, in a level database. weight_bytes: of one weight.
    flops: of the accelerator at that precision, per second; utilisation: the share of it that a forward pass reaches.
    memory: of one accelerator, bytes.
    """

    budget: str = "macs:0.5"
    tokens: int = 2048
    judged: int = 128
    windows: int = 16
    calibration: int = 64
    rows: int = 16384
    evaluations: int = 300
    levels: int = 7
    round_to: int = 128
    weight_bytes: int = 2
    flops: float = 312e12
    utilisation: float = 0.4
    memory: float = 80e9

    def __post_init__(self) -> None:
        if not 0 < self.utilisation <= 1:
            raise ValueError(f"utilisation must be in (0, 1], got {self.utilisation}")
        if not 1 <= self.judged <= self.tokens:
            raise ValueError(f"judged must be between 1 and the window's {self.tokens} tokens, got {self.judged}")


@dataclass(frozen=True, slots=True)
class Estimate:
    """Counts of the dense network and of the uniform plan at the budget; bytes and FLOPs, 1 MAC = 2 FLOPs.

    *_macs: of one window with logits at the judged positions only. cache: bytes of keys and values per token, 0 without
    a cache. ordered: the copy of the layers that groups touch. dense_outputs: the log-probabilities that plans are
    compared with. factors: what least squares keep for the layers that they repair (`solved` of `readers`), moments
    the most that they hold while they are made; all_factors: if every reader were repaired, however wide.
    ranking: one place for every weight of every matrix in the blocks; database: those matrices at every level.
    """

    groups: int
    params: int
    plan_params: int
    dense_macs: int
    plan_macs: int
    cache: int
    plan_cache: int
    weights: int
    ordered: int
    dense_outputs: int
    solved: int
    readers: int
    factors: int
    all_factors: int
    moments: int
    least_squares_flops: float
    ranking: int
    database: int
    search_tokens: int
    search_flops: float
    preparing_flops: float

    def hours(self, setting: SearchSize) -> float:
        """Of one accelerator, for preparing and the whole search; no race, no reuse of a prefix."""
        return (self.search_flops + self.preparing_flops) / (setting.flops * setting.utilisation) / 3600

    def memory(self, *, every_reader: bool = False) -> int:
        """Bytes that one evaluator holds all the time: weights, their ordered copy, dense outputs, factors."""
        return self.weights + self.ordered + self.dense_outputs + (self.all_factors if every_reader else self.factors)


def estimate(config: Mapping[str, Any], setting: SearchSize) -> Estimate:
    """What a search of heads and neurons of this architecture costs; nothing of the model is in memory.

    Raises ValueError for an unsupported model type, a window longer than its positions, or an infeasible budget.
    """
    model = meta_model(config, tokens=setting.tokens)
    example = torch.zeros(1, setting.tokens, dtype=torch.long, device="meta")
    structure = transformer_structure(model, example, prune=("heads", "neurons"), round_to=setting.round_to)
    costs = NetworkCosts(model, structure, example)
    cost, counted = costs.macs(), costs.params()
    plan = uniform_plan(structure, Projector(structure, parse_budget(setting.budget, {"macs": cost}, structure)))
    kept = np.array(plan.kept)
    spared = _logits_elsewhere(model, structure, setting)
    dense_macs, plan_macs = (int(cost(k)) - spared for k in (structure.units, kept))
    blocks = tuple(f"{stage}." for stage in structure.stages)
    matrices = [x for x in structure.layers if x.kind == "linear" and x.name.startswith(blocks)]
    touched = {layer.name for group in structure.groups for layer in structure.layers_of(group)}
    readers = [
        x for x in matrices if x.name in {m.layer for g in structure.groups for m in g.members if m.axis == "in"}
    ]
    solved = [x for x in readers if x.inputs <= MOST_COLUMNS]
    in_blocks = sum(x.outputs * x.inputs for x in matrices)
    vocabulary = int(_config(model).vocab_size) if _output(model) is not None else 0
    return Estimate(
        groups=len(structure.groups),
        params=int(counted(structure.units)),
        plan_params=int(counted(kept)),
        dense_macs=dense_macs,
        plan_macs=plan_macs,
        cache=_cache(model, structure, structure.units, setting),
        plan_cache=_cache(model, structure, kept, setting),
        weights=int(counted(structure.units)) * setting.weight_bytes,
        ordered=sum(x.outputs * x.inputs for x in matrices if x.name in touched) * setting.weight_bytes,
        dense_outputs=setting.windows * setting.judged * vocabulary * 2,
        solved=len(solved),
        readers=len(readers),
        factors=sum(map(_factor_bytes, solved)),
        all_factors=sum(map(_factor_bytes, readers)),
        moments=sum(8 * x.inputs**2 for x in solved),
        least_squares_flops=sum(_least_squares_flops(x, rows=setting.rows) for x in solved),
        ranking=2 * in_blocks,
        database=setting.levels * in_blocks * setting.weight_bytes,
        search_tokens=setting.evaluations * setting.windows * setting.tokens,
        search_flops=2.0 * plan_macs * setting.windows * setting.evaluations,
        preparing_flops=2.0 * dense_macs * (setting.windows + setting.calibration),
    )  # fmt: skip


def meta_model(config: Mapping[str, Any], *, tokens: int) -> nn.Module:
    """The architecture on the meta device: shapes, and no weights."""
    kind = config.get("model_type")
    if kind not in SUPPORTED:
        raise ValueError(f"the configuration's model_type is {kind!r}; supported are {list(SUPPORTED)}")
    with torch.device("meta"):
        model = (encoder if kind in ENCODERS else causal_lm)(json.dumps(dict(config)))
    longest = int(_config(model).max_position_embeddings)
    if tokens > longest:
        raise ValueError(f"windows of {tokens} tokens are longer than the model's {longest} positions; give --tokens")
    return model


def _config(model: nn.Module) -> Any:
    return model.config


def _output(model: nn.Module) -> nn.Module | None:
    found = model.get_output_embeddings()  # type: ignore[operator]
    return found if isinstance(found, nn.Module) else None


def _logits_elsewhere(model: nn.Module, structure: Structure, setting: SearchSize) -> int:
    """MACs of logits that nobody asks for: those of positions that aren't judged."""
    names = {name for name, module in model.named_modules() if module is _output(model)}
    elsewhere = setting.tokens - setting.judged
    return sum(layer.outputs * layer.inputs * elsewhere for layer in structure.layers if layer.name in names)


def _cache(model: nn.Module, structure: Structure, kept: IntArray, setting: SearchSize) -> int:
    """Bytes of keys and values per token: a head group's units are key heads."""
    if _output(model) is None:
        return 0
    width = sum(
        int(count) * (group.members[-1].positions.shape[1] // _queries_per_key(model))
        for group, count in zip(structure.groups, kept, strict=True)
        if group.granularity == "head"
    )
    return 2 * int(width) * setting.weight_bytes


def _queries_per_key(model: nn.Module) -> int:
    config = _config(model)
    return int(config.num_attention_heads) // int(getattr(config, "num_key_value_heads", config.num_attention_heads))


def _factor_bytes(layer: Layer) -> int:
    """L⁻¹, WL and the ordered weights, float32 (evaluation/least_squares.py)."""
    return 4 * (layer.inputs**2 + 2 * layer.outputs * layer.inputs)


def _least_squares_flops(layer: Layer, *, rows: int) -> float:
    """Gram matrix, Cholesky factor, its inverse, WL; in float64."""
    n = float(layer.inputs)
    return 2 * rows * n**2 + n**3 / 3 + n**3 + 2 * layer.outputs * n**2


def accelerators(needed: float, setting: SearchSize) -> int:
    """How many hold so many bytes, a tenth of each left to activations."""
    return math.ceil(needed / (0.9 * setting.memory))
