"""Masks over single weights and N:M: exactly as many weights as were asked for, of the largest scores."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.schedule.decision import Allocation, Decision
from autoprune.structure.examples import Example
from autoprune.structure.geometry import survey
from autoprune.structure.groups import holds
from autoprune.structure.layer_types import (
    ATTENTIONS,
    CELLS,
    EMBEDDINGS,
    OVER_CHANNELS,
    PER_CHANNEL,
    RECURRENT,
    TRANSPOSED,
    is_sliceable,
    tensor_axes,
)
from autoprune.task.task import Task

Masks = dict[str, Tensor]  # parameter → which of its entries stay, bool
Scores = Mapping[str, Tensor]  # parameter → a score of each entry, higher = keep


@dataclass(frozen=True, slots=True)
class MaskedLayer:
    """A convolution, a linear layer, a recurrent layer's or an attention's matrix; weights go unless it is fixed."""

    name: str
    """Its qualified name; a recurrent layer and an attention have several, such as `lstm.weight_hh_l0`."""
    parameter: str
    """The qualified name of its weights."""
    weights: int
    """How many it has."""
    positions: int
    """How often each of them is multiplied for one sample."""
    ends: int
    """Outputs + inputs + the kernel's sides: what Erdős–Rényi-kernel densities go by (arXiv 1911.11134)."""
    output: bool
    """Whether it makes the network's outputs: the last one that runs."""
    input_dim: int
    """The dimension of the weights that inputs stand along."""
    fixed: str = ""
    """Why it stays dense; empty where it does not."""


def masked_layers(task: Task, model: nn.Module, *, keep: frozenset[str], granularity: str) -> tuple[MaskedLayer, ...]:
    """Returns the weights that can go of the layers which the example input runs, in order of execution.

    Args:
        task: How the network is called, and layers that stay whole.
        model: The network.
        keep: More layers, or modules that hold some, that stay dense.
        granularity: "weight" or N:M; layers whose inputs are no multiple of M stay dense.

    Raises:
        ValueError: The network does not run, has no such layer, lacks a name of `keep`, or all of it stays dense.
    """
    group = pattern_of(granularity)
    modules = dict(model.named_modules())
    if unknown := sorted(keep - set(modules)):
        raise ValueError(f"keep names {unknown}, which the model lacks; its layers are {sorted(set(modules) - {''})}")
    was_training = model.training
    seen = survey(model.eval(), Example(task.example_input, task.forward)).layers
    model.train(was_training)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    layers, tensors = list[MaskedLayer](), set[int]()
    for layer in seen:
        for name, weight, positions in _matrices(layer.name, modules[layer.name], layer.positions):
            if id(weight) in tensors:  # a tensor that several layers share goes by the first one's name
                continue
            tensors.add(id(weight))
            input_dim, inputs = _inputs(modules[layer.name], weight)
            fixed = ""
            if any(holds(kept, name) for kept in (*task.keep, *keep)):
                fixed = "it is named to stay whole"
            elif group is not None and inputs % group[1]:
                fixed = f"its {inputs} inputs are no multiple of {group[1]}"
            ends, whole = sum(weight.shape), max(1, positions)
            layers.append(MaskedLayer(name, names[id(weight)], weight.numel(), whole, ends, False, input_dim, fixed))
    if not layers:
        raise ValueError(
            f"a {type(model).__name__} runs no convolution, linear, recurrent or attention layer, so there is nothing "
            "to mask"
        )
    if all(layer.fixed for layer in layers):
        reasons = "; ".join(f"{layer.name}: {layer.fixed}" for layer in layers)
        raise ValueError(f"with granularity={granularity} every layer stays dense ({reasons})")
    return (*layers[:-1], replace(layers[-1], output=True))


def uncounted_weights(model: nn.Module, layers: Sequence[MaskedLayer]) -> dict[str, int]:
    """Returns how many weights each parameter with two dimensions or more has that is no layer's, such as embeddings.

    Args:
        model: The network.
        layers: What densities count.
    """
    counted = {layer.parameter for layer in layers}
    return {name: p.numel() for name, p in model.named_parameters() if p.ndim > 1 and name not in counted}


def pattern_of(granularity: str) -> tuple[int, int] | None:
    """Returns (N, M) of "N:M", None for "weight" and "channel". Raises ValueError for anything else."""
    if granularity in ("weight", "channel"):
        return None
    match = re.fullmatch(r"(\d+):(\d+)", granularity)
    if match is None or not 0 < int(match[1]) < int(match[2]):
        raise ValueError(
            f"granularity is 'weight', 'channel' or N:M with 0 < N < M, such as '2:4'; got {granularity!r}"
        )
    return int(match[1]), int(match[2])


def layer_counts(shares: Sequence[float], sizes: Sequence[int], total: int) -> list[int]:
    """Returns how many weights each layer keeps, in proportion to share · size, at most its size, `total` in all.

    >>> layer_counts([1.0, 1.0], [10, 30], 20)
    [5, 15]
    >>> layer_counts([2.0, 0.5], [10, 30], 20)  # the first would need more than it has
    [10, 10]

    Args:
        shares: Relative densities, at least 0.
        sizes: Weights of each layer.
        total: What they keep together, in [0, Σ sizes].
    """
    limits, wanted = np.array(sizes, np.int64), np.maximum(np.array(shares, float), 1e-12) * np.array(sizes)
    exact, full = np.zeros(len(limits)), np.zeros(len(limits), bool)
    for _ in range(len(limits) + 1):
        left = total - limits[full].sum()
        exact = np.where(full, limits, wanted * (left / max(wanted[~full].sum(), 1e-300)))
        over = exact > limits
        if not over[~full].any():
            break
        full |= over
    counts = np.minimum(np.floor(exact + 1e-9).astype(np.int64), limits)
    order = np.argsort(-(exact - counts), kind="stable")
    while (missing := int(total - counts.sum())) > 0:
        free = [index for index in order if counts[index] < limits[index]][:missing]
        counts[free] += 1
    return [int(count) for count in counts]


@dataclass(frozen=True, slots=True)
class MaskedWeights:
    """What masks are chosen by."""

    values: Mapping[str, Tensor]
    """Every parameter of the network."""
    masks: Masks
    """As they are."""
    chance: torch.Generator
    """On the CPU."""


class WeightMasking:
    """Which single weights stay: exactly as many as a density says, with N of every M kept at least for N:M."""

    def __init__(self, layers: tuple[MaskedLayer, ...], model: nn.Module, *, granularity: str) -> None:
        """Args: the layers; the network, for its shapes; "weight" or N:M."""
        self.layers, self.pattern = layers, pattern_of(granularity)
        self.free = [layer for layer in layers if not layer.fixed]
        self.total = sum(layer.weights for layer in layers)
        self.fixed = self.total - sum(layer.weights for layer in self.free)
        self.shapes = {layer.parameter: model.get_parameter(layer.parameter).shape for layer in self.free}
        self.input_dims = {layer.parameter: layer.input_dim for layer in self.free}

    @property
    def least(self) -> int:
        """The fewest weights that can stay: those of layers that stay dense, and one or N of M of every other."""
        if self.pattern is None:
            return self.fixed + len(self.free)
        return self.fixed + sum(layer.weights for layer in self.free) * self.pattern[0] // self.pattern[1]

    def count(self, density: float) -> int:
        """Returns how many weights stay at a density of all weights, at least the fewest that can."""
        return min(self.total, max(self.least, round(density * self.total)))

    def dense(self) -> Masks:
        """Returns masks that keep everything."""
        return {name: torch.ones(shape, dtype=torch.bool) for name, shape in self.shapes.items()}

    def kept(self, masks: Masks) -> int:
        """Returns how many weights stay."""
        return self.fixed + sum(int(mask.sum()) for mask in masks.values())

    def counts(self, density: float | Mapping[str, float], allocation: Allocation, *, least: int) -> list[int] | None:
        """Returns how many weights each free layer keeps; None where one threshold decides.

        Args:
            density: Of all weights, or of each layer's by name.
            allocation: How one density is shared.
            least: At least so many weights stay in all.
        """
        sizes = [layer.weights for layer in self.free]
        if isinstance(density, Mapping):
            names = [layer.name for layer in self.free]
            if set(density) != set(names):
                raise ValueError(
                    f"a schedule that decides on each layer's density names all of {names} and no other, and this one "
                    f"has {sorted(density)}"
                )
            shares = [density[layer.name] for layer in self.free]
            asked = round(sum(share * size for share, size in zip(shares, sizes, strict=True)))
            return layer_counts(shares, sizes, max(asked, least - self.fixed))
        total = max(self.count(density), least) - self.fixed
        if allocation == "uniform":
            return layer_counts([1.0] * len(sizes), sizes, total)
        if allocation == "erk":
            return layer_counts([layer.ends / layer.weights for layer in self.free], sizes, total)
        return None

    def prune(
        self, current: MaskedWeights, decision: Decision, *, least: int, gradients: Callable[[], Scores]
    ) -> Masks:
        """Returns the masks that a decision leads to: weights go, by what they are, and others grow.

        Args:
            current: The weights and masks as they are, and the source of chance.
            decision: How many stay, and which.
            least: At least so many weights stay.
            gradients: The gradient of every weight, removed ones included; asked for only where weights grow by it.

        Raises:
            ValueError: Weights are exchanged in an N:M pattern.
        """
        if decision.regrow and self.pattern is not None:
            raise ValueError(
                f"a schedule that regrows weights (regrow={decision.regrow}) needs granularity=weight: exchanging "
                f"single weights breaks the pattern {self.pattern[0]}:{self.pattern[1]}"
            )
        counts = self.counts(decision.density, decision.allocation, least=least)
        total = sum(counts) + self.fixed if counts is not None else max(self.count(decision.density_of_all), least)
        if total >= self.total:
            return self.dense()
        scores = {
            name: torch.rand(shape, generator=current.chance) if decision.criterion == "random" else
            current.values[name].detach().abs().float().cpu()
            for name, shape in self.shapes.items()
        }  # fmt: skip
        scores = {name: torch.where(current.masks[name], value, -1.0) for name, value in scores.items()}
        grows = total > self.kept(current.masks)
        if not decision.regrow and not grows and counts is None:
            return self.select(scores, None, total=total)
        if counts is None:
            chosen = self.select(scores, None, total=min(total, self.kept(current.masks)))
            counts = [int(mask.sum()) for mask in chosen.values()]
            if grows:  # what one threshold adds goes where there is room
                counts = layer_counts([1.0] * len(counts), [layer.weights for layer in self.free], total - self.fixed)
        stay = [
            min(count - round(decision.regrow * count), int(current.masks[name].sum()))
            for name, count in zip(self.shapes, counts, strict=True)
        ]
        masks = self.select(scores, stay, total=total)
        if stay == counts:
            return masks
        growth = (
            {name: value.abs().float().cpu() for name, value in gradients().items() if name in masks}
            if decision.grow_by == "gradient"
            else {name: torch.rand(shape, generator=current.chance) for name, shape in self.shapes.items()}
        )
        for (name, mask), count, kept in zip(masks.items(), counts, stay, strict=True):
            candidates = torch.where(mask, -1.0, growth[name]).flatten()
            mask.view(-1)[largest(candidates, count - kept)] = True
        return masks

    def final(self, current: MaskedWeights, *, count: int) -> Masks:
        """Returns masks that keep exactly so many weights: the largest of those that are left.

        Args:
            current: The weights now, with their masks.
            count: Weights that stay in all.
        """
        if self.kept(current.masks) <= count and not (self.pattern and self.kept(current.masks) < count):
            return current.masks
        scores = {
            name: torch.where(mask, current.values[name].detach().abs().float().cpu(), -1.0)
            for name, mask in current.masks.items()
        }
        return self.select(scores, None, total=count)

    def select(self, scores: Scores, counts: list[int] | None, *, total: int) -> Masks:
        """Returns the masks of the largest scores.

        Args:
            scores: Of every free layer's weights.
            counts: How many each keeps; None: one threshold for all.
            total: How many stay in all, where there are no counts; fixed layers' included.
        """
        guarded = {name: self._guarded(scores[name], self.input_dims[name]) for name in self.shapes}
        if counts is not None:
            return {
                name: largest(values.flatten(), count).view_as(values)
                for (name, values), count in zip(guarded.items(), counts, strict=True)
            }
        joined = largest(torch.cat([values.flatten() for values in guarded.values()]), total - self.fixed)
        ends = np.cumsum([0, *(values.numel() for values in guarded.values())])
        return {
            name: joined[a:b].view_as(values)
            for (name, values), (a, b) in zip(guarded.items(), pairwise(ends), strict=True)
        }

    def _guarded(self, scores: Tensor, input_dim: int) -> Tensor:
        """Scores of what may not go are infinite: N of every M inputs, or the best weight of a layer."""
        scores = scores.detach().float()
        if self.pattern is None:
            guarded = scores.clone()
            guarded.view(-1)[scores.reshape(-1).argmax()] = torch.inf
            return guarded
        n, m = self.pattern
        inputs_last = scores.movedim(input_dim, -1)
        grouped = inputs_last.reshape(*inputs_last.shape[:-1], -1, m)
        best = grouped.topk(n, dim=-1).indices
        return grouped.scatter(-1, best, torch.inf).reshape(inputs_last.shape).movedim(-1, input_dim).contiguous()


def largest(scores: Tensor, count: int) -> Tensor:
    """Returns a mask [N] of exactly `count` of the scores, the largest ones.

    Args:
        scores: [N]
        count: In [0, N].
    """
    mask = torch.zeros(scores.shape, dtype=torch.bool)
    if count > 0:
        mask[scores.topk(min(count, len(scores)), sorted=False).indices.cpu()] = True
    return mask


def mask_overlap(before: Masks, after: Masks) -> float:
    """Returns the share of the weights that stay after which had stayed before, in [0, 1]; 1 where nothing stays.

    Args:
        before: Parameter → which of its weights stayed.
        after: The same, later.
    """
    stay = sum(int(mask.sum()) for mask in after.values())
    both = sum(int((mask & before[name]).sum()) if name in before else int(mask.sum()) for name, mask in after.items())
    return both / stay if stay else 1.0


def _matrices(name: str, module: nn.Module, positions: int) -> Iterator[tuple[str, nn.Parameter, int]]:
    """The layer's weights, each with its name and with how often it is multiplied for one sample."""
    if isinstance(module, (*RECURRENT, *CELLS)):
        written = getattr(module, "proj_size", 0) or module.hidden_size  # of each direction
        steps = positions * module.hidden_size // (written * (1 + getattr(module, "bidirectional", False)))
        for key, weight in module.named_parameters(recurse=False):
            if weight.ndim > 1:
                yield f"{name}.{key}", weight, steps
    elif isinstance(module, ATTENTIONS):
        for key, weight in module.named_parameters():
            if weight.ndim == 2:
                yield f"{name}.{key}".removesuffix(".weight"), weight, positions
    elif is_sliceable(module) and not isinstance(module, (*EMBEDDINGS, *PER_CHANNEL, *OVER_CHANNELS)):
        own = dict(module.named_parameters(recurse=False)).get("weight")
        if own is not None and own.ndim > 1:
            yield name, own, positions


def _inputs(module: nn.Module, weight: Tensor) -> tuple[int, int]:
    """The dimension that a layer's inputs stand along, and how many each output reads."""
    single = not isinstance(module, (*RECURRENT, *CELLS, *ATTENTIONS))
    dim = tensor_axes(module, "in")[0].dim if single else 1
    if isinstance(module, TRANSPOSED):
        return dim, weight.shape[0] // module.groups if dim == 0 else 1
    return dim, weight.shape[dim]
