"""Which experts a forward pass chooses: others than it would, so that idle ones run, or those of an earlier pass."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from autoprune.structure.examples import Example
from autoprune.structure.geometry import Survey, idle_layers, survey

ROUNDS = 32  # choices of others that are tried for each example
ARGUMENT = frozenset({torch.argmax, Tensor.argmax})
LARGEST = frozenset({torch.max, Tensor.max})
BEST = ARGUMENT | LARGEST | {torch.topk, Tensor.topk}

Chosen = Callable[[Tensor, int, int], Tensor]  # (indices [...], their dimension, entries to choose from) → indices


class RoutingChoices(TorchFunctionMode):
    """Whatever is chosen along a dimension as the largest, or the largest few, is what `chosen` makes of it."""

    def __init__(self, chosen: Chosen) -> None:
        super().__init__()
        self._chosen = chosen

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        dim = _dimension(func, args, kwargs or {})
        if dim is None:
            return result
        x, indices = args[0], result if func in ARGUMENT else result[1]
        kept = indices if indices.ndim == x.ndim else indices.unsqueeze(dim)
        others = self._chosen(kept, dim, x.shape[dim])
        if func in ARGUMENT:
            return others.reshape(indices.shape)
        return type(result)((x.gather(dim, others).view_as(result[0]), others.reshape(indices.shape)))


def _dimension(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int | None:
    """The dimension along which a call chooses; None where it does not."""
    if func not in BEST or not isinstance(args[0], Tensor) or not args[0].ndim:
        return None
    names = ("k", "dim") if func not in ARGUMENT | LARGEST else ("dim",)
    named = dict(zip(names, args[1:], strict=False)) | dict(kwargs)
    dim = named.get("dim", -1 if "k" in named or (func in ARGUMENT and args[0].ndim == 1) else None)
    return dim if isinstance(dim, int) else None


class SameRouting:
    """Forward passes of narrower copies of a network choose what the first one chose, call by call."""

    def __init__(self) -> None:
        self._first: list[Tensor] = []
        self._passes = 0

    def once_more(self) -> RoutingChoices:
        """What one more forward pass chooses."""
        calls = iter(range(10**9))
        first, self._passes = self._passes == 0, self._passes + 1

        def chosen(indices: Tensor, dim: int, size: int) -> Tensor:
            call = next(calls)
            if first:
                self._first.append(indices)
            own = self._first[call] if call < len(self._first) else indices
            return own if own.shape == indices.shape and not (own >= size).any() else indices

        return RoutingChoices(chosen)


def rerouted_by_row(turn: int, indices: Tensor, dim: int, size: int) -> Tensor:
    """The choices of each row, moved on by another number of entries for every row and every turn.

    Args:
        turn: At least 0; others are chosen for another one.
        indices: What is chosen, [...] whole numbers.
        dim: The dimension of `indices` along which a row's choices lie.
        size: How many there are to choose from.
    """
    shape = [1 if d == dim % indices.ndim else n for d, n in enumerate(indices.shape)]
    rows = math.prod(shape)
    return (indices + (torch.arange(rows, device=indices.device) + turn * rows).view(shape)) % size


def rerouted_equal(turn: int, indices: Tensor, dim: int, size: int) -> Tensor:
    """The same choices for all rows, whatever they chose.

    Args:
        turn: At least 0; others are chosen for another one.
        indices: What is chosen, [...] whole numbers.
        dim: The dimension of `indices` along which a row's choices lie.
        size: How many there are to choose from.
    """
    shape = [indices.shape[dim] if d == dim % indices.ndim else 1 for d in range(indices.ndim)]
    return ((torch.arange(indices.shape[dim], device=indices.device) + turn) % size).view(shape).expand_as(indices)


def rerouted_examples(
    model: nn.Module, given: Sequence[Example], surveys: Sequence[Survey]
) -> Iterator[tuple[Example, Survey]]:
    """Further examples, with a survey each, that run layers which the given ones leave idle.

    Args:
        model: In eval mode.
        given: The task's examples.
        surveys: A survey of the network on each of them.
    """
    seen = list(surveys)
    for example in given:
        for turn in range(1, ROUNDS + 1):
            idle = idle_layers(model, seen)
            if not idle or not any(own.decides for own in seen):
                return
            other = rerouted(example, functools.partial(rerouted_by_row, turn))
            if not runs_along(model, other):
                break
            reached = survey(model, other)
            if idle.keys().isdisjoint(reached.calls):
                break
            seen.append(reached)
            yield other, reached


def rerouted(example: Example, chosen: Chosen) -> Example:
    """The same inputs, of which all that is chosen is chosen otherwise.

    Args:
        example: The inputs, and how the network is called on them.
        chosen: What is chosen instead.
    """
    return replace(example, forward=functools.partial(_routed, example.forward, chosen))


def runs_along(model: nn.Module, example: Example) -> bool:
    """Whether the network runs on what was made of an example: its forward pass may check what is chosen.

    Args:
        model: In eval mode.
        example: The inputs, and how they are given to the network.
    """
    try:
        survey(model, example)
    except (ValueError, TypeError):
        return False
    return True


def _routed(forward: Callable[[nn.Module, Any], Any], chosen: Chosen, network: nn.Module, inputs: Any) -> Any:
    with RoutingChoices(chosen):
        return forward(network, inputs)
