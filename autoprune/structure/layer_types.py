"""What is known of each type of layer: the tensors that an axis runs through, and the attributes that say its width."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoprune.structure.groups import Axis
from autoprune.structure.sliced_attention import SlicedAttention

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
RECURRENT = (nn.RNN, nn.LSTM, nn.GRU)
CELLS = (nn.RNNCell, nn.LSTMCell, nn.GRUCell)
ATTENTIONS = (nn.MultiheadAttention, SlicedAttention)
PER_CHANNEL = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.PReLU)
OVER_CHANNELS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)
SLICEABLE = (
    *CONVOLUTIONS, *TRANSPOSED, nn.Linear, nn.Bilinear, *EMBEDDINGS, *RECURRENT, *CELLS, *ATTENTIONS,
    *PER_CHANNEL, *OVER_CHANNELS,
)  # fmt: skip
GATES = {nn.RNN: 1, nn.LSTM: 4, nn.GRU: 3, nn.RNNCell: 1, nn.LSTMCell: 4, nn.GRUCell: 3}


@dataclass(frozen=True, slots=True)
class TensorAxis:
    """One dimension of one tensor that an axis of a layer runs through."""

    owner: nn.Module
    """The module that holds the tensor: the layer, or a part of it."""
    key: str
    """The tensor's name there."""
    dim: int
    """The tensor's dimension."""
    runs: int = 1
    """How many times the axis's entries stand on the dimension, one run after the other (the gates of an LSTM)."""

    @property
    def tensor(self) -> Tensor:
        value: Tensor = getattr(self.owner, self.key)
        return value

    def rows(self, entries: Tensor) -> Tensor:
        """Where the axis's entries stand on the dimension, [runs · entries]."""
        if self.runs == 1:
            return entries
        size = self.tensor.shape[self.dim] // self.runs
        return (torch.arange(self.runs)[:, None] * size + entries).flatten()


def tensor_axes(layer: nn.Module, axis: Axis) -> list[TensorAxis]:
    """The layer's tensors that an edit of `axis` touches, each with the dimension it is cut along.

    Args:
        layer: One that can be cut.
        axis: Of the layer; PARAMETER/DIMENSION names one tensor of it.
    """
    parameter, slash, dim = axis.rpartition("/")
    if slash:
        return [TensorAxis(layer, parameter, int(dim))]
    named = [TensorAxis(*fields) for fields in _places(layer, axis)]
    return [own for own in named if getattr(own.owner, own.key, None) is not None] + _further(layer, axis)


def _further(layer: nn.Module, axis: Axis) -> list[TensorAxis]:
    """Tensors that a subclass adds, whose dimensions are the weight's: a mask, a gain, two factors of an update."""
    if type(layer).__module__.startswith("torch.nn.") or not isinstance(layer, (*CONVOLUTIONS, nn.Linear)):
        return []
    dim, weight = ("out", "in").index(axis) if axis in ("out", "in") else 2, getattr(layer, "weight", None)
    return [
        TensorAxis(layer, key, dim)
        for key, tensor in (*layer._parameters.items(), *layer._buffers.items(), *vars(layer).items())
        if isinstance(tensor, Tensor) and key not in ("weight", "bias")
        if isinstance(weight, Tensor) and dim < weight.ndim
        if tensor.ndim == weight.ndim or (tensor.ndim == 1 and dim == 0)
        if tensor.shape[dim] == weight.shape[dim] > 1
    ]


def _places(layer: nn.Module, axis: Axis) -> Iterator[tuple[nn.Module, str, int, int]]:
    match layer:
        case nn.RNNBase() | nn.RNNCellBase():
            yield from _recurrent(layer, axis)
        case nn.MultiheadAttention() | SlicedAttention():
            yield from _attention(layer, axis)
        case nn.Bilinear():
            if axis == "out":
                yield layer, "bias", 0, 1
            yield layer, "weight", ("out", "in", "second").index(axis), 1
        case _ if isinstance(layer, TRANSPOSED) and is_grouped(layer):
            if axis == "out":
                yield layer, "bias", 0, 1
            else:
                yield layer, "weight", int(axis == "group"), 1
        case _ if (isinstance(layer, TRANSPOSED) and not is_depthwise(layer)) or _is_transposed_linear(layer):
            yield layer, "weight", int(axis == "out"), 1
            if axis == "out":
                yield layer, "bias", 0, 1
        case nn.Embedding() | nn.EmbeddingBag():
            yield layer, "weight", 1, 1
        case _ if axis == "in":
            yield layer, "weight", 1, 1
        case _:
            for key in ("weight", "bias", "running_mean", "running_var"):
                yield layer, key, 0, 1


def _recurrent(layer: nn.RNNBase | nn.RNNCellBase, axis: Axis) -> Iterator[tuple[nn.Module, str, int, int]]:
    """ "in": what is read. "out": hidden units, the same ones in all layers and directions."""
    gates = gates_of(layer)
    if isinstance(layer, nn.RNNCellBase):
        depth, directions = 1, 1
    else:
        depth, directions = layer.num_layers, 1 + layer.bidirectional
    for level in range(depth):
        for suffix in ("", "_reverse")[:directions]:
            tail = suffix if isinstance(layer, nn.RNNCellBase) else f"_l{level}{suffix}"
            if axis == "in":
                if level == 0:
                    yield layer, f"weight_ih{tail}", 1, 1
                continue
            for key in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                yield layer, f"{key}{tail}", 0, gates
            yield layer, f"weight_hh{tail}", 1, 1
            if level:
                yield layer, f"weight_ih{tail}", 1, directions


def _attention(layer: nn.Module, axis: Axis) -> Iterator[tuple[nn.Module, str, int, int]]:
    """ "in", "key", "value": what is read. "head": the features of all heads. "out": what is written."""
    projection = layer.get_submodule("out_proj")
    packed = getattr(layer, "in_proj_weight", None) is not None
    names = ("in_proj_weight",) if packed else ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    match axis:
        case "head":
            for name in names:
                yield layer, name, 0, 3 if packed else 1
            yield layer, "in_proj_bias", 0, 3
            yield projection, "weight", 1, 1
        case "out":
            yield projection, "weight", 0, 1
            yield projection, "bias", 0, 1
        case _:
            yield layer, names[0 if packed else ("in", "key", "value").index(axis)], 1, 1


def widths(layer: nn.Module, axis: Axis, size: int) -> dict[str, int | tuple[int, ...]]:
    """The attributes of the layer that must say `size` once `axis` has that many entries.

    Args:
        layer: One that can be cut.
        axis: Of the layer.
        size: Entries of the axis, at least 1.

    Returns:
        Attribute → its new value.
    """
    match layer:
        case _ if "/" in axis:
            return {}
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d() if axis == "in":
            return {"in_channels": size * layer.groups}
        case _ if isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED)):
            if is_depthwise(layer):
                channels = size * layer.in_channels // layer.out_channels
                return {"in_channels": channels, "groups": channels, "out_channels": size}
            return {} if axis == "group" else {"out_channels" if axis == "out" else "in_channels": size}
        case nn.Bilinear():
            return {{"out": "out_features", "in": "in1_features", "second": "in2_features"}[axis]: size}
        case nn.Linear():
            return {"in_features" if axis == "in" else "out_features": size}
        case nn.Embedding() | nn.EmbeddingBag():
            return {"embedding_dim": size}
        case nn.RNNBase() | nn.RNNCellBase():
            return {"input_size" if axis == "in" else "hidden_size": size}
        case nn.modules.batchnorm._BatchNorm() | nn.modules.instancenorm._InstanceNorm():
            return {"num_features": size}
        case nn.PReLU():
            return {"num_parameters": size}
        case nn.GroupNorm():
            return {"num_channels": size}
        case nn.LayerNorm() | nn.RMSNorm():
            return {"normalized_shape": (size, *layer.normalized_shape[1:])}
        case _ if _is_transposed_linear(layer):
            return {"nx" if axis == "in" else "nf": size}
    raise TypeError(f"autoprune cannot slice a {type(layer).__name__}; SLICEABLE lists the types it can")


def is_sliceable(layer: nn.Module) -> bool:
    """Whether autoprune knows the axes of the layer, whatever it makes of them."""
    return isinstance(layer, SLICEABLE) or _is_transposed_linear(layer)


def is_depthwise(layer: nn.Module) -> bool:
    """Whether the layer is a convolution that reads each channel by itself; it may write several for each."""
    if isinstance(layer, TRANSPOSED):
        return layer.groups == layer.out_channels == layer.in_channels > 1
    return isinstance(layer, CONVOLUTIONS) and layer.groups == layer.in_channels > 1


def is_grouped(layer: nn.Module) -> bool:
    """Whether the layer is a convolution whose outputs each read some of its inputs only."""
    return isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED)) and layer.groups > 1 and not is_depthwise(layer)


def gates_of(layer: nn.Module) -> int:
    return next(gates for kind, gates in GATES.items() if isinstance(layer, kind))


def _is_transposed_linear(layer: nn.Module) -> bool:
    """Whether the layer is transformers' Conv1D: a linear layer with a weight [inputs, outputs]."""
    return type(layer).__name__ == "Conv1D" and hasattr(layer, "nf") and hasattr(layer, "weight")
