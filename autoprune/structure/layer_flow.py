"""Which entries of a layer's axes stand where in the tensors that it reads and writes, call by call."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from autoprune.structure.groups import Axis, IntArray
from autoprune.structure.layer_types import (
    ATTENTIONS,
    CELLS,
    CONVOLUTIONS,
    EMBEDDINGS,
    OVER_CHANNELS,
    PER_CHANNEL,
    RECURRENT,
    TRANSPOSED,
    is_depthwise,
    is_grouped,
    is_sliceable,
)

Fresh = Callable[[str, Tensor, int, IntArray], Tensor]  # (layer, tensor like it, dimension of the nodes, nodes)


class Nodes:
    """Numbers for the entries of axes: node = start of the axis + entry."""

    def __init__(self) -> None:
        self.axes: dict[tuple[str, Axis], tuple[int, int]] = {}
        self.count = 0

    def of(self, layer: str, axis: Axis, size: int) -> IntArray:
        """The nodes of all entries of an axis.

        Args:
            layer: Its qualified name.
            axis: Of the layer.
            size: Entries of the axis, the same wherever it is asked for.

        Returns:
            [size]

        Raises:
            ValueError: The axis had another size before.
        """
        if (layer, axis) not in self.axes:
            self.axes[layer, axis] = self.count, size
            self.count += size
        start, first_size = self.axes[layer, axis]
        if first_size != size:
            raise ValueError(f"axis {axis!r} of {layer!r} has {first_size} entries in one place and {size} in another")
        return np.arange(start, start + size)

    def more(self, size: int) -> IntArray:
        """Nodes of no axis, [size]: places where entries of axes meet.

        Args:
            size: How many.
        """
        self.count += size
        return np.arange(self.count - size, self.count)


def stands_for(layer: nn.Module) -> bool:
    """Whether the layer's axes are known where it is called: its type is, and its forward pass is that type's own."""
    if not is_sliceable(layer) or (isinstance(layer, nn.PReLU) and layer.num_parameters == 1):
        return False
    if isinstance(layer, OVER_CHANNELS):
        own = next(kind for kind in OVER_CHANNELS if isinstance(layer, kind))
        return type(layer).forward is own.forward and len(getattr(layer, "normalized_shape", (0,))) == 1
    return True


def leaves_places(layer: nn.Module) -> bool:
    """Whether entries along dimensions that the layer does not read along stay where they are, each by itself."""
    if isinstance(layer, CONVOLUTIONS):
        return {*layer.kernel_size, *layer.stride} == {1} and not is_grouped(layer)
    return isinstance(layer, (nn.Linear, *PER_CHANNEL, *OVER_CHANNELS))


class Flow:
    """One call of one layer."""

    def __init__(self, name: str, layer: nn.Module, nodes: Nodes) -> None:
        self.name, self.layer, self._nodes = name, layer, nodes

    def reads(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[Tensor, int, IntArray]]:
        """The tensors that are read, each with the dimension of its columns and their nodes.

        Args:
            args: What the layer is called with, by position.
            kwargs: What it is called with, by name.
        """
        layer = self.layer
        values = [*args, *kwargs.values()]
        match layer:
            case _ if isinstance(layer, EMBEDDINGS) or not values:
                return
            case _ if isinstance(layer, ATTENTIONS):
                named = dict(zip(("query", "key", "value"), args, strict=False)) | dict(kwargs)
                packed = getattr(layer, "in_proj_weight", None) is not None
                for key, axis in (("query", "in"), ("key", "key"), ("value", "value")):
                    x = named[key]
                    yield x, -1, self._nodes.of(self.name, "in" if packed else axis, x.shape[-1])
            case nn.Bilinear():
                for x, axis in zip(values, ("in", "second"), strict=True):
                    yield x, -1, self._nodes.of(self.name, axis, x.shape[-1])
            case _ if isinstance(layer, (*RECURRENT, *CELLS)):
                x = values[0].data if isinstance(values[0], PackedSequence) else values[0]
                yield x, -1, self._nodes.of(self.name, "in", layer.input_size)
                states = values[1] if len(values) > 1 else ()
                for state in (states,) if isinstance(states, Tensor) else states or ():
                    yield state, -1, self.out
            case _ if isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED)):
                dim = -1 - len(layer.kernel_size)
                if is_depthwise(layer):
                    yield values[0], dim, self.out[:: layer.out_channels // layer.in_channels]
                    return
                each = layer.in_channels // (layer.groups if isinstance(layer, CONVOLUTIONS) else 1)
                yield values[0], dim, self._nodes.of(self.name, "in", each)[np.arange(layer.in_channels) % each]
            case _ if isinstance(layer, (*PER_CHANNEL, *OVER_CHANNELS)):
                yield values[0], self._channels(values[0]), self.out
            case _:
                yield values[0], -1, self._nodes.of(self.name, "in", values[0].shape[-1])

    def wrote(self, true: Any, fresh: Fresh) -> Any:
        """What the layer returns, with numbers in the place of its own, given what it really returns.

        Args:
            true: What the layer returned.
            fresh: Makes a tensor like another one whose entries along a dimension stand for nodes.
        """
        layer = self.layer

        def made(tensor: Tensor, dim: int) -> Tensor:
            nodes = np.resize(self.out, tensor.shape[dim])  # of both directions, where there are two
            return fresh(self.name, tensor, dim, nodes)

        match true:
            case Tensor() if isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED)):
                return made(true, -1 - len(layer.kernel_size))
            case Tensor() if isinstance(layer, (*PER_CHANNEL, *OVER_CHANNELS)):
                return made(true, self._channels(true))
            case Tensor():
                return made(true, -1)
            case (Tensor() as outputs, weights) if isinstance(layer, ATTENTIONS):
                return made(outputs, -1), weights
            case (outputs, states) if isinstance(layer, RECURRENT):
                if isinstance(outputs, PackedSequence):
                    outputs = outputs._replace(data=made(outputs.data, -1))
                else:
                    outputs = made(outputs, -1)
                return outputs, made(states, -1) if isinstance(states, Tensor) else tuple(made(s, -1) for s in states)
            case tuple():
                return tuple(made(state, -1) for state in true)
        raise TypeError(f"{self.name}, a {type(layer).__name__}, returns a {type(true).__name__}")

    @property
    def out(self) -> IntArray:
        """The nodes of what the layer writes; of one that hands on its channels, of what it reads too."""
        return self._nodes.of(self.name, "out", out_size(self.layer))

    def _channels(self, tensor: Tensor) -> int:
        if isinstance(self.layer, nn.LayerNorm | nn.RMSNorm):
            return -1
        if isinstance(self.layer, nn.modules.instancenorm._InstanceNorm):
            own = {"InstanceNorm1d": 2, "InstanceNorm2d": 3, "InstanceNorm3d": 4}  # without samples
            return int(tensor.ndim > own.get(type(self.layer).__name__, 0))
        return 1


def out_size(layer: nn.Module) -> int:
    """The entries of the layer's axis "out"."""
    for key in ("out_channels", "out_features", "hidden_size", "embedding_dim", "num_features", "num_channels",
                "num_parameters", "embed_dim", "nf"):  # fmt: skip
        if isinstance(getattr(layer, key, None), int):
            return int(getattr(layer, key))
    return int(layer.normalized_shape[0])  # type: ignore[index]


def ties(name: str, layer: nn.Module, nodes: Nodes, *, inexact: bool) -> Iterator[tuple[IntArray, IntArray]]:
    """Pairs of nodes of the layer's own axes that must go together, whatever reads or writes them.

    A grouped convolution keeps equally many channels in each of its groups, so channels at the same place in different
    groups are one. So do the groups of a GroupNorm where its statistics may change (`inexact`) and that gives more
    units; otherwise its groups go whole. A head's features go together.

    Args:
        name: The layer's qualified name.
        layer: The layer.
        nodes: Numbers of its axes' entries; axes that it lacks are added.
        inexact: Whether statistics of a normalisation may change.
    """
    if not is_sliceable(layer):
        return
    if isinstance(layer, ATTENTIONS):
        size = layer.get_submodule("out_proj").get_parameter("weight").shape[1]
        heads = nodes.of(name, "head", size)
        yield heads, heads[np.arange(size) // int(layer.head_dim) * int(layer.head_dim)]
        return
    size = out_size(layer)
    if (name, "out") not in nodes.axes:
        return
    out = nodes.of(name, "out", size)
    if is_depthwise(layer):
        each = size // int(layer.in_channels)  # type: ignore[arg-type]
        yield out, out[np.arange(size) // each * each]
    elif is_grouped(layer):
        each = size // int(layer.groups)  # type: ignore[arg-type]
        yield out, out[np.arange(size) % each]
        if isinstance(layer, TRANSPOSED):
            yield out, nodes.of(name, "group", each)[np.arange(size) % each]
            into, read = nodes.of(name, "in", layer.in_channels), layer.in_channels // layer.groups
            yield into, into[np.arange(len(into)) % read]
    elif isinstance(layer, nn.GroupNorm):
        each, entries = size // layer.num_groups, np.arange(size)
        yield out, out[entries % each if inexact and each > layer.num_groups else entries // each * each]
