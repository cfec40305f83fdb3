"""A network whose `.apz` file is no larger than was asked for: its smallest weights go until it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.export.apz import encode_state, state_of
from autoprune.export.shape_record import shape_record
from autoprune.task.copies import copied
from autoprune.task.task import Architecture

MOST_REMOVED = 0.25  # of the weights that are left: a larger miss is no error of the prediction
MOST_FILES = 60  # that are coded to find how many weights have to go


@dataclass(frozen=True, slots=True, eq=False)
class LimitedFile:
    """A network beside the size that its file was to have."""

    network: nn.Module
    """The network as it was given, or a copy without some of its weights."""
    bytes: int
    """Of its file."""
    limit: float
    """Bytes that the file was to have at most."""
    removed: int
    """Weights that went beside those that a plan removes."""

    @property
    def meets(self) -> bool:
        """Returns whether the file is no larger than the limit."""
        return self.bytes <= self.limit

    def as_json(self) -> dict[str, Any]:
        """Returns everything but the network."""
        return {"bytes": self.bytes, "limit": self.limit, "removed": self.removed, "meets": self.meets}


def within_bytes(
    network: nn.Module, limit: float, *, architecture: Architecture | None, magnitudes: Mapping[str, Tensor]
) -> LimitedFile:
    """Returns the network without so many of its smallest weights that its file meets the limit, and no more.

    Matrices that keep more than half of their weights lose none beside sparser ones: without some, they would need an
    index that takes more than is saved. Where a quarter of the weights would not do, the network is returned as it is.
    A size that is predicted before a network is trained is missed by some per cent afterwards; this closes the gap.

    Args:
        network: Stays as it is.
        limit: Bytes of the `.apz` file.
        architecture: What the file says of how the dense network is built.
        magnitudes: Name of a parameter that may lose weights → how important each is; the least of all go first.
    """
    record, state = shape_record(network, architecture), state_of(network)
    size = len(encode_state(record, state))
    present = [name for name in magnitudes if name in state]
    names = [name for name in present if _is_sparse(state[name])] or present
    if size <= limit or not names:
        return LimitedFile(network, size, limit, 0)
    order = _ascending([state[name] for name in names], [magnitudes[name] for name in names])

    def without(count: int) -> dict[str, Tensor]:
        flat = torch.cat([state[name].flatten() for name in names]).index_fill(0, order[:count], 0)
        parts = flat.split([state[name].numel() for name in names])
        return {**state, **{name: part.view_as(state[name]) for name, part in zip(names, parts, strict=True)}}

    removed = _fewest(
        lambda count: len(encode_state(record, without(count))), limit, most=int(MOST_REMOVED * len(order)), whole=size
    )
    if removed is None:
        return LimitedFile(network, size, limit, 0)
    smaller, left = copied(network).eval(), without(removed)
    with torch.no_grad():
        for name, parameter in smaller.named_parameters():
            if name in names:
                parameter.copy_(left[name])
    return LimitedFile(smaller, len(encode_state(record, left)), limit, removed)


def _is_sparse(weight: Tensor) -> bool:
    return 2 * int(weight.count_nonzero()) <= weight.numel()


def _ascending(weights: list[Tensor], magnitudes: list[Tensor]) -> Tensor:
    """Places of the weights that are not 0 in all matrices one after the other, the least important first."""
    present = torch.cat([weight.flatten() for weight in weights]).nonzero().flatten()
    importance = torch.cat([each.detach().flatten().abs().cpu().double() for each in magnitudes])
    return present[importance[present].argsort(stable=True)]


def _fewest(size_without: Callable[[int], int], limit: float, *, most: int, whole: int) -> int | None:
    """How many have to go, where one less would be too large a file; None where `most` are not enough."""
    low, high, above = 0, most, whole
    if not most or (below := size_without(most)) > limit:
        return None
    for trial in range(MOST_FILES):
        if high - low <= 1:
            break
        share = 0.5 if trial % 3 == 2 or above == below else (above - limit) / (above - below)
        middle = min(max(low + round(share * (high - low)), low + 1), high - 1)
        size = size_without(middle)
        low, high, above, below = (low, middle, above, size) if size <= limit else (middle, high, size, below)
    return high
