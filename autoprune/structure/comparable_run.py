"""A masked and a shrunk network run so that what they return can be compared: nothing is drawn, no unit is silent."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from autoprune.structure.weight_functions import MEANS, sum_factors

SILENCING = frozenset({F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})
IN_PLACE = frozenset({F.relu_, torch.relu_, Tensor.relu_})
SLOPE = 0.5  # of what is negative, in a silencing function's place
DROPPING = frozenset({F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout})
DRAWING = frozenset(
    {torch.randn, torch.rand, torch.randn_like, torch.rand_like, torch.normal, torch.bernoulli, Tensor.bernoulli,
     Tensor.bernoulli_, Tensor.normal_, Tensor.uniform_, Tensor.exponential_, torch.poisson}
)  # fmt: skip
SHARE = 1 / 16  # of a sum, in a mean's place
DRAWN = 0.75  # what every random number is


class ComparableRun(TorchFunctionMode):
    """Random numbers are one number, however many are drawn: a narrower network would draw other ones.

    Args:
        awake: Whether units that are negative count as well, and not only those that a ReLU lets pass.
        summed: Whether means and maxima are sums, which are the same over units of zeros and without them.
    """

    def __init__(self, *, awake: bool, summed: bool = False) -> None:
        super().__init__()
        self._awake, self._summed = awake, summed

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func in SILENCING and self._awake:
            tensor = args[0] if args else named["input"]
            in_place = func in IN_PLACE or named.get("inplace", len(args) > 1 and args[1])
            return F.leaky_relu(tensor, SLOPE, inplace=bool(in_place))
        if func in DROPPING:
            return args[0] if args else named["input"]
        result = func(*args, **named)
        if self._summed and func in MEANS and (factors := sum_factors(func, args, named, graph=False)):
            ((x, dim),) = factors
            sums = x.sum(dim, keepdim=True).mul(SHARE)
            if isinstance(result, Tensor):
                return sums.reshape(result.shape)
            return type(result)((sums.reshape(result[0].shape), *result[1:]))
        if func in DRAWING and isinstance(result, Tensor) and result.is_floating_point():
            with torch.no_grad():
                result.fill_(DRAWN)
        return result
