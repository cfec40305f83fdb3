"""Modules that may normalise what they read, and which entries they normalise together."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.structure.weighted_gradients import indices_of


def may_normalise(module: nn.Module) -> bool:
    """Whether the module is one piece and, by its name or its parameters, might be a normalisation.

    Args:
        module: Of the network.
    """
    if any(module.children()):
        return False
    own = [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]
    vectors = [t for t in own if t.numel() > 1]
    named = re.search("norm", type(module).__name__, re.IGNORECASE) is not None
    return named or (bool(vectors) and all(t.numel() == max(t.shape) for t in vectors))


def mixed_entries(
    forward: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], x: Tensor
) -> Tensor | None:
    """Which entries of x the first of the answer's reads, where entries are normalised with all, or with neighbours.

    Args:
        forward: Of the module.
        args: What it is called with, by position.
        kwargs: What it is called with, by name.
        x: The first of these.

    Returns:
        As x; None where it reads one, where x falls apart into groups that are normalised by themselves, and where the
        answer has another shape.
    """
    probe = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).to(x.device, x.dtype).requires_grad_()
    y = _given(forward, args, kwargs, probe)
    if not isinstance(y, Tensor) or y.shape != x.shape or not y.requires_grad:
        return None

    def read(entry: int) -> Tensor:
        (gradient,) = torch.autograd.grad(y.flatten()[entry], probe, retain_graph=True)
        return gradient != 0

    mixed = read(0)
    if int(mixed.sum()) < 2:
        return None
    parts = any(1 < len(indices_of(mixed, dim)) < size for dim, size in enumerate(x.shape))
    if parts and torch.equal(mixed, read(int(mixed.flatten().nonzero()[-1]))):
        return None  # as in a GroupNorm, whose groups can go whole
    return mixed


def _given(forward: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], first: Tensor) -> Any:
    """What is returned with another first argument."""
    return forward(first, *args[1:], **kwargs) if args else forward(**{**kwargs, next(iter(kwargs)): first})
