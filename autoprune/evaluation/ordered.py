"""Rank once, slice for ever: a candidate network is a set of views of one ordered network."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from autoprune.plan import PruningPlan
from autoprune.structure.edit import Ranking, is_depthwise, tensor_axes
from autoprune.structure.groups import Axis, IntArray, Structure


class OrderedNetwork:
    """The dense network with every group's units permuted, most important first.

    Keeping k units of a group is then a leading slice of every coupled tensor, so `at(plan)` binds views: nothing is
    copied, traced or masked. There is one network, so the one that `at` returns is valid until the next call.
    prepare: what a repair does to the network's layers, once, before they are sliced.
    """

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        ranking: Ranking,
        *,
        dtype: torch.dtype = torch.float32,
        prepare: Callable[[nn.Module], None] | None = None,
    ) -> None:
        self.network = _detached(model, dtype)
        if prepare is not None:
            prepare(self.network)
        layers = dict(self.network.named_modules())
        axes = {key: _AxisSlices(structure, *key) for key in _touched_axes(structure)}
        for axis_slices in axes.values():
            order = axis_slices.order(ranking)
            layer = layers[axis_slices.layer]
            for key, dim in tensor_axes(layer, axis_slices.axis):
                setattr(layer, key, _channels_last(getattr(layer, key).index_select(dim, order)))
        self._layers = [
            _LayerSlices(layers[name], axes.get((name, "out")), axes.get((name, "in")))
            for name in dict.fromkeys(name for name, _ in axes)
        ]

    def at(self, plan: PruningPlan) -> nn.Module:
        """The network that keeps each group's first plan.kept units, on views of the ordered weights."""
        for layer in self._layers:
            layer.bind(plan.kept)
        return self.network


class _AxisSlices:
    """Which entries of one axis stay, for any numbers of kept units."""

    def __init__(self, structure: Structure, layer: str, axis: Axis) -> None:
        self.layer, self.axis = layer, axis
        geometry = next(found for found in structure.layers if found.name == layer)
        self.size = geometry.outputs if axis == "out" else geometry.inputs
        self.members: list[tuple[int, IntArray]] = [
            (index, member.positions)
            for index, group in enumerate(structure.groups)
            for member in group.members
            if (member.layer, member.axis) == (layer, axis)
        ]
        self._names = structure.names
        (self.group, positions), *others = self.members
        self.per_unit = positions.shape[1]
        # the common case: one group fills the whole axis in unit order, so that keeping is a leading slice
        self.leading = not others and bool(
            (positions.ravel() == range(self.size)).all() if positions.size == self.size else False
        )
        self._positions = [(index, torch.from_numpy(positions)) for index, positions in self.members]
        self._cache: dict[tuple[int, ...], Tensor] = {}

    def order(self, ranking: Ranking) -> Tensor:
        """[size]: the dense entry that comes to stand at each place."""
        order = torch.arange(self.size)
        for index, positions in self._positions:
            order[positions.flatten()] = positions[ranking[self._names[index]].cpu()].flatten()
        return order

    def entries(self, kept: tuple[int, ...]) -> Tensor:
        """The places that stay where they are not a leading slice (concatenations, grouped convolutions)."""
        key = tuple(kept[index] for index, _ in self.members)
        if key not in self._cache:
            stays = torch.ones(self.size, dtype=torch.bool)
            for index, positions in self._positions:
                stays[positions[kept[index] :].flatten()] = False
            self._cache[key] = stays.nonzero().flatten()
        return self._cache[key]


class _LayerSlices:
    """Binds one layer's tensors and widths to a plan."""

    def __init__(self, layer: nn.Module, out: _AxisSlices | None, into: _AxisSlices | None) -> None:
        self.layer, self.out, self.into = layer, out, into
        self.full: dict[str, Tensor] = {key: getattr(layer, key) for key, _ in tensor_axes(layer, "out")}
        self.depthwise = is_depthwise(layer)

    def bind(self, kept: tuple[int, ...]) -> None:
        values = self.layer.__dict__  # tensors are plain attributes here, and Module.__setattr__ is slow
        for key, tensor in self.full.items():
            if self.out is not None:
                tensor = _cut(tensor, 0, self.out, kept)
            if key == "weight" and self.into is not None:
                tensor = _cut(tensor, 1, self.into, kept)
            values[key] = tensor
        if self.depthwise:
            values["groups"] = len(values["weight"])


def _cut(tensor: Tensor, dim: int, axis: _AxisSlices, kept: tuple[int, ...]) -> Tensor:
    if axis.leading:
        return tensor.narrow(dim, 0, kept[axis.group] * axis.per_unit)
    return tensor.index_select(dim, axis.entries(kept))


def _touched_axes(structure: Structure) -> list[tuple[str, Axis]]:
    return list(dict.fromkeys((m.layer, m.axis) for group in structure.groups for m in group.members))


def _detached(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy whose parameters and buffers are plain attributes, so that they can be rebound to views."""
    network = copy.deepcopy(model).eval().requires_grad_(False)
    for layer in network.modules():
        for store in (layer._parameters, layer._buffers):
            for key in list(store):
                tensor = store.pop(key)
                if tensor is not None:
                    tensor = tensor.detach()
                    # BatchNorm keeps its few numbers in fp32: torch's kernels mix them with low-precision activations
                    low = tensor.is_floating_point() and not isinstance(layer, nn.modules.batchnorm._BatchNorm)
                    tensor = _channels_last(tensor.to(dtype) if low else tensor)
                layer.__dict__[key] = tensor
    return network


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor.contiguous()
