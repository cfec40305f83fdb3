"""Convolutions that standardise their weight at every call (arXiv 1903.10520): a norm over what they read."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from autoprune.structure.layer_types import CONVOLUTIONS

SIDE = 9  # of the noise that a layer is tried on: larger than most kernels
SAME = 1e-3  # outputs that differ by less, relative to their size, are equal


@torch.no_grad()
def standardises_weight(layer: nn.Module) -> bool:
    """Whether the layer answers the same with twice its weight, as one does that divides it by its deviation."""
    if not isinstance(layer, (*CONVOLUTIONS, nn.Linear)) or type(layer).__module__.startswith("torch.nn."):
        return False
    weight = layer.get_parameter("weight")
    own = weight.data
    if isinstance(layer, nn.Linear):
        shape = [2, layer.in_features]
    else:
        sides = [max(SIDE, gap * (size - 1) + 1) for size, gap in zip(layer.kernel_size, layer.dilation, strict=True)]
        shape = [1, layer.in_channels, *sides]
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(own)
    try:
        once = layer(noise)
        weight.data = 2 * own
        twice = layer(noise)
    except Exception:  # a forward pass of its own may read something else
        return False
    finally:
        weight.data = own
    bias = getattr(layer, "bias", None)
    size = (once if bias is None else once - bias.view(-1, *[1] * (once.ndim - 2))).abs().max()
    return bool((once - twice).abs().max() <= SAME * size)


class OwnWeight(TorchFunctionMode):
    """While it is open, products are of this weight, whatever is computed from it."""

    PRODUCTS = frozenset({F.conv1d, F.conv2d, F.conv3d, F.linear})

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self._weight = weight

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func in self.PRODUCTS and "weight" in named:
            named["weight"] = self._weight
        elif func in self.PRODUCTS:
            args = (args[0], self._weight, *args[2:])
        return func(*args, **named)
