"""From couplings to candidates: sets of layers that lose units together, before anybody has tried to remove some."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import nn

from autoprune.structure.couplings import INPUT, OUTPUT_NODE, Laboratory
from autoprune.structure.groups import Attribute, Axis, Granularity, IntArray, Member, holds
from autoprune.structure.layer_flow import ties
from autoprune.structure.layer_types import (
    ATTENTIONS,
    OVER_CHANNELS,
    PER_CHANNEL,
    TensorAxis,
    is_depthwise,
    tensor_axes,
)
from autoprune.structure.refused import computed_weights
from autoprune.structure.stand_ins import NO_LAYER, REACHES_ALL, Couplings
from autoprune.structure.standardised_weights import standardises_weight

OUTPUT = "the network's output"
INPUTS = "its channels are the network's inputs"
UNREAD = (
    "nothing is seen to read its outputs: the forward pass drops them, detaches them from the graph of derivatives, "
    "only looks at them to choose what runs (argmax, item), or leaves torch"
)
ONE_PIECE = "all its units can only go together"

AxisName = tuple[str, Axis]


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """Layers that would lose units together, or why they can't."""

    name: str
    """The first layer in order of execution that writes its units."""
    granularity: Granularity
    """What a unit is."""
    members: tuple[Member, ...]
    """Axes that would become smaller."""
    reason: str | None = None
    """Why they cannot; None: they may."""
    attributes: tuple[Attribute, ...] = ()
    """What modules must know of the number of units."""
    normalisers: tuple[str, ...] = ()
    """Modules that normalise over the units, so that removing them is not what masking is."""
    averaged: bool = False
    """Whether a mean or a maximum is taken over the units, which is another one without some."""

    @property
    def units(self) -> int:
        return len(self.members[0].positions)


def candidates(
    model: nn.Module,
    couplings: Couplings,
    laboratories: Sequence[Laboratory],
    *,
    keep: frozenset[str],
    inexact: bool,
) -> list[Candidate]:
    """All sets of layers that lose units together, in order of execution.

    Args:
        model: The network.
        couplings: What the laboratories found out.
        laboratories: One for each example.
        keep: Layers, or modules that hold layers, whose outputs stay whole.
        inexact: Groups of a GroupNorm lose channels, instead of going whole.
    """
    return _Components(model, couplings, laboratories, keep=keep, inexact=inexact).candidates()


class _Components:
    def __init__(
        self,
        model: nn.Module,
        couplings: Couplings,
        laboratories: Sequence[Laboratory],
        *,
        keep: frozenset[str],
        inexact: bool,
    ) -> None:
        self.modules = dict(model.named_modules())
        self.order = {name: index for index, name in enumerate(couplings.ran)}
        self.couplings = couplings
        for name in couplings.ran:
            for first, second in ties(name, self.modules[name], couplings.nodes, inexact=inexact):
                couplings.connect(first, second)
        self.pinned = {
            node: OUTPUT if why == OUTPUT_NODE else INPUTS if why == INPUT else why
            for node, why in couplings.pinned.items()
        }
        self._tie_shared_tensors()
        self._pin_layers(keep)
        self.label = self._components()
        made = [
            self.label[start : start + size].tolist()
            for axis, (start, size) in couplings.nodes.axes.items()
            if self._makes(*axis)
        ]
        self.going = {each for labels in made for each in labels} - {int(self.label[node]) for node in self.pinned}
        self.axes = self._labelled_axes(laboratories)
        self.normalisers = self._normalisers(laboratories)
        self.averaged = {int(self.label[node]) for node in couplings.averaged}
        self.hubs = {int(self.label[written[0]]) for written, _ in couplings.hubs}

    def candidates(self) -> list[Candidate]:
        entries: dict[int, dict[AxisName, IntArray]] = defaultdict(dict)
        for axis, labels in self.axes.items():
            order = np.argsort(labels, kind="stable")
            values, starts = np.unique(labels[order], return_index=True)
            stops = [*starts[1:].tolist(), len(order)]
            for value, start, stop in zip(values.tolist(), starts.tolist(), stops, strict=True):
                if value >= 0:
                    entries[value][axis] = order[start:stop]
        reasons = self._reasons()
        alike: dict[object, list[int]] = defaultdict(list)
        for label, own in entries.items():
            counts = tuple((axis, len(positions)) for axis, positions in own.items())
            alike[counts, reasons.get(label)].append(label)
        made = [
            self._candidate([entries[label] for label in labels], reasons.get(labels[0]), labels)
            for labels in alike.values()
        ]
        ordered = sorted((c for c in made if c is not None), key=lambda c: self._first_position(c.members[0]))
        return list(_distinct(ordered))

    def _components(self) -> IntArray:
        """The component of every node. Hubs that tie all the units of a component into one are left out."""
        hubs = self.couplings.hubs
        label = self._connected(hubs)
        single = self._single(label)
        suspects = [hub for hub in hubs if label[hub[0][0]] in single]
        if not suspects:
            return label
        others = [hub for hub in hubs if label[hub[0][0]] not in single]
        # one that ties all units by itself, such as a map for all channels, is no reason to drop those beside it
        without = self._connected(others)
        tying = [hub for hub in suspects if self._ties_all(hub, without)]
        beside = [hub for hub in suspects if not any(hub is other for other in tying)]
        single = self._single(label := self._connected([*others, *beside]))
        dropped = [*tying, *(hub for hub in beside if label[hub[0][0]] in single)]
        for written, read in dropped:
            why = REACHES_ALL.format(self._layer_of(int(read[0])) or NO_LAYER)
            self.pinned |= {node: why for node in written.tolist() if node not in self.pinned}
        return self._connected([*others, *(hub for hub in beside if label[hub[0][0]] not in single)])

    def _ties_all(self, hub: tuple[IntArray, IntArray], label: IntArray) -> bool:
        """Whether an axis is in one piece if what the hub holds is one, beside what the labels say."""
        held = np.unique(label[np.concatenate(hub)])
        return any(
            size > 1 and self._makes(layer, axis) and bool(np.isin(label[start : start + size], held).all())
            for (layer, axis), (start, size) in self.couplings.nodes.axes.items()
        )

    def _makes(self, layer: str, axis: Axis) -> bool:
        """Whether units are made there, rather than read or handed on."""
        written = axis in ("out", "head") and _writes(self.modules[layer])
        return written or (layer, axis) in self.couplings.functions

    def _layer_of(self, node: int) -> str:
        axes = self.couplings.nodes.axes.items()
        return next((layer for (layer, _), (start, size) in axes if start <= node < start + size), "")

    def _single(self, label: IntArray) -> set[int]:
        """Components that hold an axis whole, so that nothing of it could be removed."""
        whole = set()
        for (layer, axis), (start, size) in self.couplings.nodes.axes.items():
            own = label[start : start + size]
            if size > 1 and self._makes(layer, axis) and (own == own[0]).all():
                whole.add(int(own[0]))
        return whole

    def _connected(self, hubs: Sequence[tuple[IntArray, IntArray]]) -> IntArray:
        count = self.couplings.nodes.count
        pairs = [*self.couplings.edges, np.zeros((0, 2), np.int64)]
        for written, read in hubs:
            everyone = np.concatenate([written, read])
            pairs.append(np.stack([everyone[:-1], everyone[1:]], axis=1))
        first, second = np.concatenate(pairs).T
        graph = coo_matrix((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
        labels: IntArray = connected_components(graph, directed=False)[1].astype(np.int64)
        return labels

    def _tie_shared_tensors(self) -> None:
        """Axes of layers that run through one dimension of the same tensor are the same axis."""
        holders: dict[tuple[int, int], list[tuple[AxisName, TensorAxis]]] = defaultdict(list)
        computed = computed_weights(self.modules[""])  # which are other tensors every time
        for name, axis in [key for key in self.couplings.nodes.axes if key[0] not in computed]:
            for tensor_axis in tensor_axes(self.modules[name], axis):
                holders[id(tensor_axis.tensor), tensor_axis.dim].append(((name, axis), tensor_axis))
        layers: dict[int, set[str]] = defaultdict(set)
        for name in self.order:
            for tensor in self.modules[name].parameters(recurse=False):
                layers[id(tensor)].add(name)
        for (tensor_id, _), sharing in holders.items():
            (first, tensor_axis), *others = sharing
            nodes = self.couplings.nodes.of(*first, self._size(first))
            for other, other_axis in others:
                if self._size(other) == len(nodes) and other_axis.runs == tensor_axis.runs:
                    self.couplings.connect(nodes, self.couplings.nodes.of(*other, self._size(other)))
            lacking = layers[tensor_id] - {name for (name, _), _ in sharing}
            if lacking and tensor_axis.tensor.ndim > 1:
                why = f"it shares its weight with {', '.join(sorted(lacking))}"
                self.pinned |= {int(node): why for node in nodes if int(node) not in self.pinned}

    def _size(self, axis: AxisName) -> int:
        return self.couplings.nodes.axes[axis][1]

    def _pin_layers(self, keep: frozenset[str]) -> None:
        computed = computed_weights(self.modules[""])
        for (name, axis), (start, size) in self.couplings.nodes.axes.items():
            layer, why = self.modules[name], computed.get(name)
            if axis in ("out", "head") and any(holds(kept, name) for kept in keep):
                why = f"task.keep names {name}"
            elif isinstance(layer, nn.RNNBase) and layer.proj_size:
                why = f"{name} has projections (proj_size), which autoprune does not make smaller"
            elif isinstance(layer, nn.MultiheadAttention) and (layer.bias_k is not None or layer.add_zero_attn):
                why = f"{name} has add_bias_kv or add_zero_attn, with which autoprune does not make it smaller"
            if why:
                self.pinned |= dict.fromkeys(range(start, start + size), why)

    def _labelled_axes(self, laboratories: Sequence[Laboratory]) -> dict[AxisName, IntArray]:
        """Axis → the label of each of its entries, −1 for none: layers' axes, and those of free tensors."""
        axes = {axis: self.label[start : start + size] for axis, (start, size) in self.couplings.nodes.axes.items()}
        for laboratory in laboratories:
            names = list(laboratory.free)
            labels_of_free = laboratory.labels([laboratory.free[name] for name in names], self.label, self.going)
            for (module, key), seen in zip(names, labels_of_free, strict=True):
                axis = None if seen is None else _unit_dimension(seen[0], seen[1].cpu().numpy())
                if axis is None:
                    continue
                dim, labels = axis
                if isinstance(self.modules[module], OVER_CHANNELS) and dim == 0:
                    axes[module, "out"] = labels
                    self.order.setdefault(module, len(self.order))
                else:
                    axes.setdefault((module, f"{key}/{dim}"), labels)
        return axes

    def _normalisers(self, laboratories: Sequence[Laboratory]) -> dict[int, dict[str, None]]:
        """Label → the modules that normalise over its units."""
        normalisers: dict[int, dict[str, None]] = defaultdict(dict)
        for (name, axis), labels in self.axes.items():
            layer = self.modules[name]
            over = axis == "out" and isinstance(layer, OVER_CHANNELS) and not _goes_whole(layer, labels)
            if over or (axis == "in" and standardises_weight(layer)):
                for label in np.unique(labels).tolist():
                    normalisers[label][name] = None
        for laboratory in laboratories:
            read = laboratory.labels([tensor for _, tensor, _ in laboratory.normalised], self.label, self.going)
            for (name, _, mixed), seen in zip(laboratory.normalised, read, strict=True):
                if seen is None or not _mixes_units(seen[0], mixed.cpu().numpy()):
                    continue
                for label in set(np.unique(seen[0]).tolist()) - {-1}:
                    normalisers[label][name] = None
        return normalisers

    def _reasons(self) -> dict[int, str]:
        pinned = sorted(self.pinned.items(), key=lambda item: item[1] == OUTPUT, reverse=True)
        reasons = {int(self.label[node]): why for node, why in reversed(pinned)}
        read = set(np.unique(self.label[sorted(self.couplings.read)]).tolist()) if self.couplings.read else set()
        for (name, axis), (start, size) in self.couplings.nodes.axes.items():
            if axis != "head" and self._makes(name, axis):
                for label in np.unique(self.label[start : start + size]).tolist():
                    if label not in read:
                        reasons.setdefault(label, UNREAD)
        return reasons

    def _candidate(
        self, units: list[dict[AxisName, IntArray]], reason: str | None, labels: list[int]
    ) -> Candidate | None:
        axes = list(units[0])
        makers = [axis for axis in axes if self._makes(*axis)]
        if not makers:
            passes = [axis for axis in axes if axis[1] == "out" and is_depthwise(self.modules[axis[0]])]
            if not passes or reason is None:
                return None  # the columns that read the network's inputs
            makers = passes
        first = min(makers, key=lambda axis: self.order.get(axis[0], len(self.order)))
        units = sorted(units, key=lambda own: int(own[first].min()))
        members = [
            Member(layer, axis, np.stack([own[layer, axis] for own in units]), len(self.axes[layer, axis]))
            for layer, axis in (first, *sorted((a for a in axes if a != first), key=self._axis_place))
        ]
        if reason is None and len(units) == 1:
            reason = ONE_PIECE
        layer = self.modules[first[0]]
        named = f"{first[0]}.out_proj" if isinstance(layer, ATTENTIONS) and first[1] == "out" else first[0]
        if "/" in first[1]:
            named = f"{first[0]}.{first[1].rpartition('/')[0]}".removeprefix(".")
        linear = _is_linear(layer) or "/" in first[1]
        granularity: Granularity = "neuron" if linear else "channel"
        if first[1] == "head" or (linear and labels[0] in self.hubs):
            granularity = "head"
        normalisers = tuple(dict.fromkeys(name for label in labels for name in self.normalisers.get(label, ())))
        attributes, averaged = tuple(self._attributes(members)), not self.averaged.isdisjoint(labels)
        return Candidate(named, granularity, tuple(members), reason, attributes, normalisers, averaged)

    def _attributes(self, members: Sequence[Member]) -> Iterator[Attribute]:
        """A GroupNorm of which whole groups go has fewer of them."""
        for member in members:
            layer = self.modules[member.layer]
            if isinstance(layer, nn.GroupNorm) and _goes_whole(layer, self.axes[member.layer, "out"]):
                each = layer.num_channels // layer.num_groups
                yield Attribute(member.layer, "num_groups", member.positions.shape[1] // each)

    def _axis_place(self, axis: AxisName) -> tuple[int, int, str]:
        return self.order.get(axis[0], len(self.order)), int(axis[1] == "in"), axis[1]

    def _first_position(self, member: Member) -> tuple[int, int]:
        return self.order.get(member.layer, len(self.order)), int(member.positions.min())


def _distinct(ordered: Sequence[Candidate]) -> Iterator[Candidate]:
    """The same with names that occur once."""
    seen: dict[str, int] = defaultdict(int)
    for candidate in ordered:
        seen[candidate.name] += 1
        number = seen[candidate.name]
        name = candidate.name if number == 1 else f"{candidate.name}#{number}"
        yield replace(candidate, name=name)


def _unit_dimension(labels: IntArray, alive: np.ndarray) -> tuple[int, IntArray] | None:
    """The dimension of a tensor along which each index belongs to one label, and these; None where there is none."""
    best: tuple[int, IntArray] | None = None
    for dim in range(labels.ndim):
        if labels.shape[dim] == 1:
            continue
        rows = np.moveaxis(labels, dim, 0).reshape(labels.shape[dim], -1)
        seen = np.moveaxis(alive, dim, 0).reshape(labels.shape[dim], -1)
        exact = seen & (rows >= 0)
        highest = np.where(exact, rows, -1).max(axis=1)
        lowest = np.where(exact, rows, np.iinfo(np.int64).max).min(axis=1)
        used = seen.any(axis=1)
        mostly = exact.sum(axis=1) * 2 >= seen.sum(axis=1)  # some gradients cancel, and say nothing
        if (highest[used] != lowest[used]).any() or not mostly[used].all():
            continue
        if best is None or len(np.unique(highest)) > len(np.unique(best[1])):
            best = dim, highest
    return best


def _mixes_units(labels: IntArray, mixed: NDArray[np.bool_]) -> bool:
    """Whether entries that are normalised together belong to several units, rather than to several places of one.

    Args:
        labels: Of every entry that is read, −1 for those of none.
        mixed: Which entries one of the answer's reads; others read as many, beside them.
    """
    at = [np.flatnonzero(mixed.any(axis=tuple(d for d in range(mixed.ndim) if d != dim))) for dim in range(mixed.ndim)]
    along = [dim for dim, indices in enumerate(at) if len(indices) > 1]
    if not along:
        return False
    part = labels[np.ix_(*(at[d] if d in along else np.arange(size) for d, size in enumerate(labels.shape)))]
    rows = np.moveaxis(part, along, range(part.ndim - len(along), part.ndim))
    rows = rows.reshape(-1, math.prod(rows.shape[part.ndim - len(along) :]))
    lowest = np.where(rows >= 0, rows, np.iinfo(np.int64).max).min(axis=1)
    return bool((rows.max(axis=1) > lowest).any())


def _goes_whole(layer: nn.Module, labels: IntArray) -> bool:
    """Whether every group of a GroupNorm has labels of its own, so that its statistics stay what they are."""
    if not isinstance(layer, nn.GroupNorm):
        return False
    groups = labels.reshape(layer.num_groups, -1)
    return bool((groups == groups[:, :1]).all())


def _writes(layer: nn.Module) -> bool:
    """Whether the layer makes units, rather than handing them on."""
    return not isinstance(layer, (*PER_CHANNEL, *OVER_CHANNELS)) and not is_depthwise(layer)


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear | nn.Bilinear | nn.RNNBase | nn.RNNCellBase) or type(layer).__name__ == "Conv1D"
