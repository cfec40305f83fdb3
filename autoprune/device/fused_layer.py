"""Fused layers: what a network is cut into to be timed, a layer with what follows it directly, at any width."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

Kind = Literal["conv", "depthwise", "linear", "op"]
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@dataclass(frozen=True, slots=True)
class Call:
    """An operator of torch's ATen, and what it is called with."""

    operator: str
    """Its qualified name, such as `aten.relu.default`."""
    arguments: tuple[Any, ...] = ()
    """Those after the tensors."""

    def __call__(self, *tensors: Tensor) -> Tensor:
        _, name, overload = self.operator.split(".")
        answer = getattr(getattr(torch.ops.aten, name), overload)(*tensors, *map(_listed, self.arguments))
        return answer if isinstance(answer, Tensor) else answer[0]


@dataclass(frozen=True, slots=True)
class FusedLayer:
    """The geometry of a layer with what follows it directly, for any numbers of input and output channels.

    >>> str(FusedLayer("conv", (8, 8), (3, 3), (2, 2), (1, 1), (1, 1), norm=True))
    'conv 3×3 / 2 at 8×8 + norm'
    """

    kind: Kind
    """`conv`; `depthwise`: a convolution with one input channel for each output; `linear`; `op`: an operator without
    weights, such as an average. Depthwise layers and operators have one width, their inputs."""
    size: tuple[int, ...]
    """The input's spatial size, or (rows,) of a linear layer."""
    kernel: tuple[int, ...] = ()
    """Of a convolution, by dimension."""
    stride: tuple[int, ...] = ()
    """Of a convolution, by dimension."""
    padding: tuple[int, ...] = ()
    """Of a convolution, by dimension."""
    dilation: tuple[int, ...] = ()
    """Of a convolution, by dimension."""
    groups: int = 1
    """Of a convolution; its channels are counted in multiples of it."""
    bias: bool = False
    """Whether it has one."""
    norm: bool = False
    """Whether a BatchNorm follows."""
    adds: bool = False
    """Whether a residual tensor is added then."""
    activation: Call | None = None
    """What follows that."""
    op: Call | None = None
    """The operator of kind "op"."""
    tensors: int = 1
    """How many inputs of the same shape the operator has."""

    @property
    def square(self) -> bool:
        """Whether both axes are one: as many outputs as inputs."""
        return self.kind in ("depthwise", "op")

    def module(self, inputs: int, outputs: int) -> nn.Module:
        """It as a network of so many input and output channels, in eval mode with random weights.

        Args:
            inputs: Channels or features that it reads.
            outputs: Channels or features that it writes.
        """
        return FusedLayerModule(self, inputs, outputs).eval()

    def example(self, inputs: int, outputs: int, *, batch: int) -> tuple[Tensor, ...]:
        """What that module is called with.

        Args:
            inputs: Channels or features that it reads.
            outputs: Channels or features that it writes.
            batch: Samples at once.
        """
        generator = torch.Generator().manual_seed(0)
        of_one: tuple[int, ...] = (batch * self.size[0],) if self.kind == "linear" else (batch,)
        spatial = ((), ()) if self.kind == "linear" else (self.size, self.output_size)
        shapes = [(*of_one, inputs, *spatial[0])] * self.tensors + [(*of_one, outputs, *spatial[1])] * self.adds
        return tuple(torch.randn(shape, generator=generator) for shape in shapes)

    @property
    def output_size(self) -> tuple[int, ...]:
        """The spatial size of a convolution's output; of anything else, its input's."""
        if not self.kernel:
            return self.size
        axes = zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)

    def __str__(self) -> str:
        size = "×".join(map(str, self.size))
        if self.kind == "op" and self.op is not None:
            return f"{self.op.operator.split('.')[1]} at {size}"
        kernel = f" {'×'.join(map(str, self.kernel))}" if self.kernel else ""
        stride = f" / {self.stride[0]}" if self.stride and self.stride[0] > 1 else ""
        fused = [name for name, there in (("norm", self.norm), ("add", self.adds)) if there]
        fused += [self.activation.operator.split(".")[1].rstrip("_")] if self.activation else []
        return f"{self.kind}{kernel}{stride} at {size}" + "".join(f" + {name}" for name in fused)


class FusedLayerModule(nn.Module):
    """A fused layer at one width."""

    def __init__(self, layer: FusedLayer, inputs: int, outputs: int) -> None:
        super().__init__()
        self.op, self.activation, self.adds = layer.op, layer.activation, layer.adds
        self.layer: nn.Module = nn.Identity()
        if layer.kind == "linear":
            self.layer = nn.Linear(inputs, outputs, bias=layer.bias)
        elif layer.kind != "op":
            geometry = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
            groups = inputs if layer.kind == "depthwise" else layer.groups
            convolution: type[nn.Module] = CONVOLUTIONS[len(layer.size)]
            self.layer = convolution(inputs, outputs, layer.kernel, **geometry, groups=groups, bias=layer.bias)
        dimensions = len(layer.size) if layer.kind != "linear" else 1
        self.norm: nn.Module = NORMS[dimensions](outputs) if layer.norm else nn.Identity()

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        if self.op is not None:
            return self.op(first, *others)
        outputs: Tensor = self.norm(self.layer(first))
        if self.adds:
            outputs = outputs + others[0]
        return outputs if self.activation is None else self.activation(outputs)


def _listed(argument: Any) -> Any:
    return [_listed(entry) for entry in argument] if isinstance(argument, tuple) else argument
