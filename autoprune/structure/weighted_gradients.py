"""Which reader an entry has: its gradients for readers that are weighted by their numbers say."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from autoprune.structure.groups import IntArray

DIGIT = 256  # numbers are read off two gradients in this base: single precision tells that many apart
ALIVE = 1e-6  # a gradient below this share of the largest one is taken for rounding
DIGIT_ERROR = 0.01  # of a number that is read off; mixtures of several are off by more, but for one in a billion
SIGNATURE_ERROR = 1e-4
ROUNDING = 1e-5  # of a gradient, as a share of the largest one


class WeightedGradients:
    """Gradients of one tensor for readers that were weighted by 1, by the digits of their number, and by signatures."""

    def __init__(self, gradients: Sequence[Tensor], signatures: Tensor) -> None:
        self._all = [as_real(gradient).nan_to_num() for gradient in gradients]
        self.one, self.signatures = self._all[0], signatures.to(gradients[0].device)

    def decoded(self) -> tuple[Tensor, Tensor]:
        """The number of each entry's reader, and whether it is read, by that one alone."""
        number, exact = self._numbers(self._all)
        return number, exact & is_alive(self.one)

    def pairs(self, dim: int, *, slack: float = 1.0) -> tuple[IntArray, IntArray, Tensor | None]:
        """Pairs of an index along a dimension and the number of a reader; and the entries with several, if there are.

        Args:
            dim: The dimension of the tensor.
            slack: Times the error that is taken for rounding, at least 1, where every index has many entries.

        Returns:
            [pairs] indices, [pairs] readers, and a mask of the tensor's shape or None.
        """
        rows = [g.movedim(dim, 0).reshape(g.shape[dim], -1) for g in self._all]
        one, sign = rows[0], rows[3]
        if not is_alive(one).any():  # nor is any of no entries, as where nothing is routed to an expert
            none = np.zeros(0, np.int64)
            return none, none, None
        size, peak = one.abs().max(dim=1)
        units = (size > ALIVE * size.max()).nonzero().flatten()
        peaks = [g.gather(1, peak[:, None])[units, 0] for g in rows]
        number, exact = self._numbers(peaks, slack=slack)
        if bool(exact.all()):  # is the whole unit read by the reader of its largest entry?
            error = (sign[units] - one[units] * (peaks[3] / peaks[0])[:, None]).abs()
            if bool((error <= slack * (SIGNATURE_ERROR * one[units].abs() + ROUNDING * size.max())).all()):
                return units.cpu().numpy(), number.cpu().numpy(), None
        number, exact = self._numbers(rows)
        alive = is_alive(one)
        exact &= alive
        unit = torch.arange(len(one), device=one.device)[:, None].expand_as(one)
        count = self.signatures.shape[1]
        both = torch.unique(unit[exact] * count + number[exact]).cpu().numpy()
        rest = alive & ~exact
        shape = self.one.movedim(dim, 0).shape
        several = rest.view(shape).movedim(0, dim) if bool(rest.any()) else None
        return both // count, both % count, several

    def _numbers(self, gradients: Sequence[Tensor], *, slack: float = 1.0) -> tuple[Tensor, Tensor]:
        one, low, high, *signs = gradients
        digits = [(gradient / one).nan_to_num() - 1 for gradient in (low, high)]
        rounded = [digit.round() for digit in digits]
        number = (rounded[0] + DIGIT * rounded[1]).long()
        count = self.signatures.shape[1]
        exact = (number >= 0) & (number < count)
        number = number.clamp(0, count - 1)
        for sign, signature in zip(signs, self.signatures, strict=True):
            exact &= ((sign / one).nan_to_num() / signature[number] - 1).abs() < slack * SIGNATURE_ERROR
        for digit, whole in zip(digits, rounded, strict=True):
            exact &= (digit - whole).abs() < min(0.3, slack * DIGIT_ERROR)
        return number, exact


def as_real(tensor: Tensor) -> Tensor:
    """The tensor, or of complex numbers their two parts along one more dimension, the last."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def regular_blocks(closed: Tensor) -> Tensor | None:
    """The block of every column [columns], if these columns can be one of equal blocks or of equal combs."""
    columns, size = closed.nonzero().flatten(), len(closed)
    count = len(columns)
    step = int(columns[1] - columns[0]) if count > 1 else 1
    if count < 2 or size % count or bool((columns.diff() != step).any()):
        return None
    if step == 1:
        return torch.arange(size) // count if int(columns[0]) % count == 0 else None
    return torch.arange(size) % step if step * count == size else None


def is_alive(gradient: Tensor) -> Tensor:
    size = gradient.abs()
    return size > ALIVE * size.nan_to_num().max() if size.numel() else size > 0


def indices_of(mask: Tensor, dim: int) -> IntArray:
    """Where along a dimension anything of the mask is true.

    Args:
        mask: [...] of any shape.
        dim: A dimension of it.

    Returns:
        [indices], ascending.
    """
    indices: IntArray = mask.movedim(dim, 0).flatten(1).any(dim=1).nonzero().flatten().cpu().numpy()
    return indices
