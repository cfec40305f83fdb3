"""Rank once, slice for ever: a candidate network is a set of views of one ordered network."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from autoprune.evaluation.bound import BoundCodes, BoundMask, BoundModules
from autoprune.repair.folding import fold_batch_norms
from autoprune.repair.least_squares import Reconstruction
from autoprune.repair.repair import MixedStatistics
from autoprune.repair.replace_me import Replacements
from autoprune.repair.weight_levels import RankedLevels, WeightLevels
from autoprune.structure.axes import AxisSlices, Kept, touched_axes
from autoprune.structure.code_bits import is_coded
from autoprune.structure.edit import Ranking
from autoprune.structure.groups import Axis, Structure
from autoprune.structure.layer_types import TensorAxis, is_depthwise, tensor_axes, widths
from autoprune.structure.sliced_attention import slice_attention, slice_encoders
from autoprune.task.copies import copied
from autoprune.task.samples import Samples
from autoprune.task.task import Forward, plain_forward

# whose forward passes ask for their widths
ASKING = (nn.RNNBase, nn.RNNCellBase, nn.LayerNorm, nn.RMSNorm, nn.modules.instancenorm._InstanceNorm)
REPAIRED_BYTES = 128 * 2**20  # of repaired weights that are kept for the next plan with the same width


class OrderedNetwork:
    """The dense network with every group's units permuted, most important first.

    Keeping k units of a group is then a leading slice of every coupled tensor, so `at(kept)` binds views: nothing is
    copied, traced or masked. There is one network, so the one that `at` returns is valid until the next call.

    What costs nothing to share, the dense model's own tensors among it, is shared and never written to.
    """

    def __init__(  # noqa: PLR0913 - keyword-only settings
        self,
        model: nn.Module,
        structure: Structure,
        ranking: Ranking,
        *,
        dtype: torch.dtype = torch.float32,
        batch_statistics: float = 0.0,
        reconstruction: Reconstruction | None = None,
        levels: WeightLevels | None = None,
        replacements: Replacements | None = None,
        example_input: Samples | None = None,
        forward: Forward = plain_forward,
    ) -> None:
        """Permutes what groups cut, and finds what `at` has to bind.

        Args:
            model: The dense network, in eval mode; it stays as it is.
            structure: The network's groups and layers.
            ranking: Group → its units, most important first.
            dtype: Of the candidates' weights.
            batch_statistics: The share in [0, 1] of the batch's statistics that candidates normalise by; at 0,
                BatchNorm is folded into the layer before it where that changes nothing.
            reconstruction: The weights by which layers read what is left of their inputs; None: the dense ones.
            levels: The weights of matrices that lose single ones; None: the best by rank, as they are.
            replacements: Maps that stand for removed sublayers, in the layers before them; None: nothing does.
            example_input: One sample [1, ...], with which BatchNorms that can be folded are found; None: none is.
            forward: (network, inputs) → outputs: how the network is called.
        """
        axes = {key: AxisSlices(structure, *key) for key in touched_axes(structure)}
        names = tuple(dict.fromkeys(name for name, _ in axes))
        self.network, buffers = _detached(model, sliced=names)
        if batch_statistics:
            normalised_by_batch(self.network, float(batch_statistics))
        elif reconstruction is None and example_input is not None and not is_coded(structure):
            fold_batch_norms(self.network, example_input, forward=forward)
        _cast(self.network, dtype, except_for=buffers)
        layers = dict(self.network.named_modules())
        for axis_slices in axes.values():
            order = axis_slices.order(ranking)
            for tensor_axis in tensor_axes(layers[axis_slices.layer], axis_slices.axis):
                ordered = tensor_axis.tensor.index_select(
                    tensor_axis.dim, tensor_axis.rows(order).to(tensor_axis.tensor.device)
                )
                tensor_axis.owner.__dict__[tensor_axis.key] = _channels_last(ordered)
        self.stages = structure.stages
        self.touched = {
            name: frozenset(index for index, group in enumerate(structure.groups) if group.touches(name))
            for name in dict.fromkeys([layer.name for layer in structure.layers])
        }
        self._mapped = _Mapped(layers, replacements)
        self.touched |= {name: self.touched.get(name, frozenset()) | groups for name, groups in self._mapped.touched}
        self.touched |= {
            stage: frozenset().union(*(g for name, g in self.touched.items() if name.startswith(f"{stage}.")))
            for stage in structure.stages
        }
        self.touched = {name: groups for name, groups in self.touched.items() if groups}
        self._layers = []
        self.repaired = _RepairedWeights()
        for name in names:
            own = {axis: slices for (layer, axis), slices in axes.items() if layer == name}
            repaired = None
            if reconstruction is not None and "in" in own and name in reconstruction.layers:
                out = own["out"].order(ranking) if "out" in own else None
                repaired = _Repaired(reconstruction, name, own["in"], out, dtype, self.repaired)
            self._layers.append(_LayerSlices(layers[name], model.get_submodule(name), own, repaired))
        shared = RankedLevels(model, structure, ranking) if levels is None else levels
        self._matrices = [
            _Matrix(layers[matrix.layer], matrix.layer, index, shared, dtype)
            for index, group in enumerate(structure.groups)
            for matrix in group.compared
        ]
        self._codes = [
            BoundCodes(layers[name], index, sorted(self.touched[name] - {index}))
            for index, group in enumerate(structure.groups)
            for name in group.coded
        ]
        self._modules = [BoundModules(layers, group, index) for index, group in enumerate(structure.groups)]
        self._masks = [
            BoundMask(layers[pattern.module], pattern, index, group.units)
            for index, group in enumerate(structure.groups)
            for pattern in group.patterns
        ]

    def at(self, kept: Kept) -> nn.Module:
        """The network that keeps each group's first kept[g] units, on views of the ordered weights."""
        self._mapped.restore()
        for layer in self._layers:
            layer.bind(kept)
        for matrix in self._matrices:
            matrix.bind(kept)
        for codes in self._codes:  # of what the others have bound
            codes.bind(kept)
        for modules in self._modules:
            modules.bind(kept)
        for mask in self._masks:
            mask.bind(kept)
        self._mapped.bind(kept)
        return self.network


def normalised_by_batch(network: nn.Module, share: float) -> None:
    """Every BatchNorm of the detached network normalises by the batch it sees, or by a share of its statistics.

    Args:
        network: The network.
        share: Of the batch's own statistics, in [0, 1].
    """
    for layer in network.modules():
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            continue
        if share == 1:
            layer.__dict__["running_mean"] = layer.__dict__["running_var"] = None
        elif layer.running_mean is not None:
            MixedStatistics(layer, share)


class _RepairedWeights:
    """Repaired tensors of all layers, the latest REPAIRED_BYTES of them: whoever holds others keeps them alive."""

    def __init__(self) -> None:
        self._latest: OrderedDict[tuple[str, Kept], dict[str, Tensor]] = OrderedDict()
        self.held_bytes = 0

    def get_or_make(self, layer: str, kept: Kept, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Tensors by name.

        Args:
            layer: The layer's name.
            kept: Units of the groups that it reads.
            make: Makes what is not there.
        """
        key = layer, kept
        if key not in self._latest:
            self._latest[key] = make()
            self.held_bytes += _nbytes(self._latest[key])
            while self.held_bytes > REPAIRED_BYTES and len(self._latest) > 1:
                self.held_bytes -= _nbytes(self._latest.popitem(last=False)[1])
        self._latest.move_to_end(key)
        return self._latest[key]


def _nbytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


class _Repaired:
    """One layer's weights and bias as the reconstruction has them, its outputs in order of importance."""

    def __init__(
        self,
        reconstruction: Reconstruction,
        layer: str,
        into: AxisSlices,
        order: Tensor | None,
        dtype: torch.dtype,
        latest: _RepairedWeights,
    ) -> None:
        self._reconstruction, self._layer, self._order, self._dtype = reconstruction, layer, order, dtype
        self._groups, self._latest = [index for index, _ in into.members], latest

    def tensors(self, kept: Kept) -> dict[str, Tensor]:
        """weight [all outputs, kept inputs, ...] and, where the layer has one, bias [all outputs]."""
        own = tuple(kept[index] for index in self._groups)
        return self._latest.get_or_make(self._layer, own, partial(self._made, kept))

    def _made(self, kept: Kept) -> dict[str, Tensor]:
        restored = self._reconstruction.tensors(self._layer, kept)
        if self._order is not None:
            restored = {name: tensor[self._order] for name, tensor in restored.items()}
        return {name: _channels_last(tensor.to(self._dtype)) for name, tensor in restored.items()}


class _LayerSlices:
    """Binds one layer's tensors, and the widths that its forward pass asks for, to a plan."""

    def __init__(
        self, layer: nn.Module, dense: nn.Module, axes: Mapping[Axis, AxisSlices], repaired: _Repaired | None
    ) -> None:
        self.layer, self.dense, self.repaired = layer, dense, repaired
        self.tensors: dict[tuple[nn.Module, str], tuple[Tensor, list[tuple[TensorAxis, AxisSlices]]]] = {}
        for axis, slices in axes.items():
            for tensor_axis in tensor_axes(layer, axis):
                _, cuts = self.tensors.setdefault((tensor_axis.owner, tensor_axis.key), (tensor_axis.tensor, []))
                if repaired is None or axis != "in":
                    cuts.append((tensor_axis, slices))
        if repaired is not None and layer.__dict__["bias"] is not None:  # which is repaired too
            self.tensors.setdefault((layer, "bias"), (layer.__dict__["bias"], []))
        asks = isinstance(layer, ASKING) or is_depthwise(dense) or type(dense).__name__ == "Conv1D"
        self.widths = [(axis, slices) for axis, slices in axes.items() if asks]

    def bind(self, kept: Kept) -> None:
        repaired = {} if self.repaired is None else self.repaired.tensors(kept)
        for (owner, key), (tensor, cuts) in self.tensors.items():
            tensor = repaired.get(key, tensor)
            for tensor_axis, slices in cuts:
                tensor = _cut(tensor, tensor_axis, slices, kept)
            owner.__dict__[key] = tensor  # tensors are plain attributes here, and Module.__setattr__ is slow
        for axis, slices in self.widths:
            self.layer.__dict__.update(widths(self.dense, axis, len(slices.entries(kept))))
        if isinstance(self.layer, nn.RNNBase):
            self.layer.__dict__["_flat_weights"] = [
                self.layer.__dict__[name] for name in self.layer._flat_weights_names
            ]


class _Matrix:
    """Binds a matrix that loses single weights to its level, where that is another one than before."""

    def __init__(self, layer: nn.Module, name: str, group: int, levels: WeightLevels, dtype: torch.dtype) -> None:
        self.layer, self.name, self.group, self.levels, self.dtype = layer, name, group, levels, dtype
        self.shape = layer.__dict__["weight"].shape
        self.bound: int | None = None

    def bind(self, kept: Kept) -> None:
        level = kept[self.group]
        if level != self.bound:
            weight = self.levels(self.name, level).to(self.dtype)
            self.layer.__dict__["weight"] = weight.view(self.shape)
            self.bound = level


class _Mapped:
    """Binds the maps that stand for removed sublayers into what the layers before them are bound to."""

    def __init__(self, layers: Mapping[str, nn.Module], replacements: Replacements | None) -> None:
        self._layers, self._replacements = layers, replacements
        self._bound: list[tuple[nn.Module, str, Tensor]] = []

    @property
    def touched(self) -> Iterator[tuple[str, frozenset[int]]]:
        """Layers, each with the groups without which it has another weight."""
        if self._replacements is not None:
            yield from zip(self._replacements.outputs[:-1], self._replacements.removed_by[1:], strict=True)

    def restore(self) -> None:
        for layer, key, tensor in self._bound:
            layer.__dict__[key] = tensor
        self._bound.clear()

    def bind(self, kept: Kept) -> None:
        for name, mapped in ({} if self._replacements is None else self._replacements.of(kept)).items():
            layer = self._layers[name]
            for key in ("weight", "bias"):
                tensor = layer.__dict__.get(key)
                if tensor is not None:
                    self._bound.append((layer, key, tensor))
                    layer.__dict__[key] = (mapped.to(tensor.device) @ tensor.float()).to(tensor.dtype)


def _cut(tensor: Tensor, tensor_axis: TensorAxis, axis: AxisSlices, kept: Kept) -> Tensor:
    if axis.leading and tensor_axis.runs == 1:
        return tensor.narrow(tensor_axis.dim, 0, kept[axis.group] * axis.per_unit)
    entries = axis.entries(kept)
    if tensor_axis.runs > 1:
        entries = (torch.arange(tensor_axis.runs)[:, None] * axis.size + entries).flatten()
    return tensor.index_select(tensor_axis.dim, entries.to(tensor.device))


def _detached(model: nn.Module, *, sliced: tuple[str, ...]) -> tuple[nn.Module, set[tuple[nn.Module, str]]]:
    """A copy whose parameters and buffers are plain attributes, so that they can be rebound to views.

    And which of them were buffers. Its tensors are the model's own. sliced: modules that lose entries.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    network = copied(model, shared).eval()
    for name in sliced:
        slice_attention(network, name)
    slice_encoders(network)
    buffers = {(layer, key) for layer in network.modules() for key in layer._buffers}
    for layer in network.modules():
        for store in (layer._parameters, layer._buffers):
            for key in list(store):
                tensor = store.pop(key)
                layer.__dict__[key] = None if tensor is None else _channels_last(tensor.detach())
        if getattr(layer, "inplace", False):
            layer.__dict__["inplace"] = False  # what a layer has returned stays as it was (evaluation/prefix.py)
    return network, buffers


def _cast(network: nn.Module, dtype: torch.dtype, *, except_for: set[tuple[nn.Module, str]]) -> None:
    """Parameters of a detached network, tied ones once.

    Buffers keep their precision (rotary frequencies need it), and so do BatchNorm's few numbers, which torch's kernels
    mix with any.
    """
    shared: dict[int, Tensor] = {}
    for layer in network.modules():
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            for key, value in layer.__dict__.items():
                if isinstance(value, Tensor) and value.is_floating_point() and (layer, key) not in except_for:
                    layer.__dict__[key] = shared.setdefault(value.data_ptr(), value.to(dtype))


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor.contiguous()
