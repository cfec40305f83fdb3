"""Experts of networks that no family describes: modules of a list that read one tensor, or rows routed to them."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.structure.examples import Example, tensors
from autoprune.structure.groups import Group, Skip, holds
from autoprune.structure.routing_choices import rerouted, rerouted_equal, runs_along


@dataclass(frozen=True, slots=True)
class _Call:
    """What a module read and returned in one call."""

    address: int
    """Where the tensor lies that it read."""
    shape: tuple[int, ...]
    """Of that tensor."""
    as_wide: bool
    """Whether it returned a tensor of that shape."""


def expert_groups(
    model: nn.Module, examples: Sequence[Example], *, keep: frozenset[str]
) -> tuple[list[Group], dict[str, str]]:
    """One decision for each expert, whether it is there; and those that stay whole, each with the reason.

    An expert that is removed adds nothing: zeros stand in for it, and the router stays as it is.

    Args:
        model: In eval mode.
        examples: Inputs that it runs on.
        keep: Layers, or modules that hold layers, which stay as they are.
    """
    groups: list[Group] = []
    kept: dict[str, str] = {}
    for listed, as_wide in _lists(model, examples):
        for name in (f"{listed}.{key}" for key, _ in model.get_submodule(listed).named_children()):
            group = Group(f"{name}.skip", "expert", 1, (), (0, 1), skips=(Skip(name, "zeros"),))
            named = next((layer for layer in sorted(keep) if holds(name, layer) or holds(layer, name)), None)
            if named is not None:
                kept[group.name] = f"task.keep names {named}"
            elif not as_wide:
                kept[group.name] = "zeros of its input's shape would stand in for it, and it returns another shape"
            else:
                groups.append(group)
    return groups, kept


def _lists(model: nn.Module, examples: Sequence[Example]) -> Iterator[tuple[str, bool]]:
    """The lists of modules that are experts of one another, and whether these return what they read in its shape."""
    alike = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.ModuleDict) and _alike(module)
    ]
    for example in examples:
        plain = _reads(model, example, alike)
        moved = [rerouted(example, functools.partial(rerouted_equal, turn)) for turn in range(2)]
        routed = [_reads(model, each, alike) if runs_along(model, each) else plain for each in moved]
        for listed in list(alike):
            own = plain[listed]
            side_by_side = len(own) > 1 and len(set(own.values())) == 1
            if side_by_side or _shapes(routed[0][listed]) != _shapes(routed[1][listed]):
                alike.remove(listed)
                yield listed, all(call.as_wide for calls in own.values() for call in calls)


def _shapes(calls: Mapping[str, Sequence[_Call]]) -> dict[str, list[tuple[int, ...]]]:
    return {key: [call.shape for call in own] for key, own in calls.items()}


def _alike(modules: nn.Module) -> bool:
    """Whether there are several modules, with parameters of the same names and shapes."""
    shapes = [
        [(name, parameter.shape) for name, parameter in module.named_parameters()] for module in modules.children()
    ]
    return len(shapes) > 1 and bool(shapes[0]) and all(own == shapes[0] for own in shapes)


def _reads(model: nn.Module, example: Example, lists: Sequence[str]) -> dict[str, dict[str, tuple[_Call, ...]]]:
    """List → module of it that ran → its calls."""
    reads: dict[str, dict[str, tuple[_Call, ...]]] = {listed: {} for listed in lists}
    alive: list[Any] = []  # memory that is freed could come back as another tensor

    def note(listed: str, key: str, _: nn.Module, args: Any, named: Any, output: Any) -> None:
        first = next(tensors([args, named]), None)
        if first is not None and first.numel():
            alive.append(first)
            as_wide = isinstance(output, Tensor) and output.shape == first.shape
            call = _Call(first.data_ptr(), tuple(first.shape), as_wide)
            reads[listed][key] = (*reads[listed].get(key, ()), call)

    with ExitStack() as hooks, torch.no_grad():
        for listed in lists:
            for key, module in model.get_submodule(listed).named_children():
                hook = functools.partial(note, listed, key)
                hooks.enter_context(module.register_forward_hook(hook, with_kwargs=True))
        example.outputs(model)
    return reads
