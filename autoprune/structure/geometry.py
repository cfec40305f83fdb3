"""What a network's layers look like when it runs on an example: sizes, positions, and what did not run."""

import math
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from autoprune.structure.examples import Example, one_sample, smaller, tensors
from autoprune.structure.groups import Layer, holds
from autoprune.structure.layer_flow import out_size
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
    is_sliceable,
)

NOT_RUN = "the example input does not run it; give one that does (Task.example_inputs)"
NOT_CALLED = "it is never called: functions read its parameters, in a way in which no units are seen"

UNSEEN = (
    "functions read it in a way in which no units are seen, so that what is computed with it stays whole; where a "
    "layer of torch.nn computes the same, put that in its place"
)


class _Decisions(TorchFunctionMode):
    """Notes whether the forward pass looks at values: it may then do something else for others."""

    LOOKS = frozenset({Tensor.__bool__, Tensor.item, Tensor.__int__, Tensor.__float__, Tensor.__index__, Tensor.tolist,
                       torch.nonzero, Tensor.nonzero, torch.argwhere, Tensor.argwhere, torch.unique,
                       Tensor.unique, torch.masked_select, Tensor.masked_select})  # fmt: skip
    CHOOSING = frozenset({Tensor.__getitem__, Tensor.__setitem__})

    def __init__(self) -> None:
        super().__init__()
        self.taken = False
        self.parameters: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.taken |= func in self.LOOKS or (func is torch.where and len(args) == 1)
        self.taken |= func in self.CHOOSING and any(index.dtype == torch.bool for index in tensors(args[1]))
        if getattr(func, "__name__", "") != "__get__":  # its shape is no use of a parameter
            given = (*args, *(kwargs or {}).values())
            self.parameters.update(id(value) for value in given if isinstance(value, nn.Parameter))
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """One run of the network as it is."""

    layers: tuple[Layer, ...]
    """In order of execution."""
    calls: tuple[str, ...]
    """The layers in the order in which they were called, as often as they were."""
    decides: bool
    """Whether the forward pass looked at values, and so may run other layers for other inputs."""
    parameters: frozenset[int] = frozenset()
    """The ids of all parameters that functions were called with."""


def survey(model: nn.Module, example: Example) -> Survey:
    """What layers a run of the network calls, and their geometry.

    Args:
        model: In eval mode, on the example's device.
        example: The inputs, and how they are given to the network.

    Raises:
        ValueError: The network does not run on the example, or returns NaN or infinity.
    """
    ran: dict[str, Layer] = {}
    calls: list[str] = []
    samples = max((len(t) if t.ndim else 1 for t in tensors(example.inputs)), default=1)

    def note(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if not any(tensor.numel() for tensor in tensors(output)):
            return  # an expert to which nothing is routed
        calls.append(name)
        layer = _geometry(name, module, inputs, output, samples=samples)
        ran[name] = replace(layer, positions=layer.positions + ran[name].positions) if name in ran else layer

    inner = [n for n, m in model.named_modules() if isinstance(m, ATTENTIONS)]
    decisions = _Decisions()
    try:
        with ExitStack() as hooks, torch.no_grad(), decisions:
            for name, module in model.named_modules():
                if name and not any(name != n and holds(n, name) for n in inner) and _has_tensors(module):
                    hooks.enter_context(module.register_forward_hook(partial(note, name)))
            outputs = example.outputs(model)
    except TypeError as error:
        if "a container of one, is needed" in str(error):
            raise
        raise _not_run(example, error) from error
    except Exception as error:
        raise _not_run(example, error) from error
    if not all(torch.isfinite(tensor).all() for tensor in outputs.values()):
        raise ValueError("the network's outputs for the example input hold NaN or infinity; its weights may be broken")
    return Survey(tuple(ran.values()), tuple(calls), decisions.taken, frozenset(decisions.parameters))


def _not_run(example: Example, error: Exception) -> ValueError:
    return ValueError(
        f"the network does not run on its example input of shape {example.shapes}: {type(error).__name__}: {error}"
    )


def examples_like(model: nn.Module, given: Sequence[Example], surveys: Sequence[Survey]) -> list[Example]:
    """One small sample for each example, on which the network runs the same layers.

    Args:
        model: In eval mode.
        given: The task's examples.
        surveys: A survey of the network on each of them.
    """
    chosen = []
    for example, seen in zip(given, surveys, strict=True):
        one = one_sample(example)
        for less in (smaller(one), one, example):
            try:
                if survey(model, less).calls == seen.calls:
                    break
            except (ValueError, TypeError):
                continue
        chosen.append(less)
    return chosen


def idle_layers(model: nn.Module, surveys: Sequence[Survey]) -> dict[str, str]:
    """The layers that no example runs, or whose parameters are read without a call, each with that reason.

    Args:
        model: The network that was surveyed.
        surveys: One for each example.

    Returns:
        Layer → the reason.
    """
    ran = {name for seen in surveys for name in seen.calls}
    read = frozenset[int]().union(*(seen.parameters for seen in surveys))
    inner = [n for n, m in model.named_modules() if isinstance(m, ATTENTIONS)]
    return {
        name: NOT_CALLED if any(id(own) in read for own in module.parameters(recurse=False)) else NOT_RUN
        for name, module in model.named_modules()
        if name not in ran and is_sliceable(module) and not isinstance(module, (*PER_CHANNEL, *OVER_CHANNELS))
        if not any(name != n and holds(n, name) for n in inner)
    }


def unseen_parameters(model: nn.Module, surveys: Sequence[Survey], seen_in: Collection[str]) -> dict[str, str]:
    """Weights that modules of a person's own hold and that nothing is known of, each with that reason.

    Args:
        model: The network that was surveyed.
        surveys: One for each example.
        seen_in: Modules some of whose units are known.

    Returns:
        Parameter → the reason.
    """
    read = frozenset[int]().union(*(seen.parameters for seen in surveys))
    return {
        f"{name}.{key}".removeprefix("."): UNSEEN
        for name, module in model.named_modules()
        if name not in seen_in and not type(module).__module__.startswith("torch.nn.") and not is_sliceable(module)
        for key, parameter in module.named_parameters(recurse=False)
        if id(parameter) in read and sum(size > 1 for size in parameter.shape) >= 1 + any(module.children())
    }


def widths_of(model: nn.Module, layers: Iterable[str]) -> dict[int, str]:
    """How many entries the layers read and write, each with one of these layers.

    Args:
        model: The network that the layers are in.
        layers: Qualified names of layers that can be cut.

    Returns:
        Entries → the first of the layers with so many.
    """
    widths: dict[int, str] = {}
    for name in layers:
        layer = model.get_submodule(name)
        for key in ("in_channels", "in_features", "input_size", "nx"):
            if isinstance(getattr(layer, key, None), int):
                widths.setdefault(int(getattr(layer, key)), name)
        widths.setdefault(out_size(layer), name)
    return widths


def other_params(model: nn.Module, layers: Sequence[Layer]) -> int:
    """Parameters of none of the layers whose parameters follow from their geometry.

    Args:
        model: The network, whose parameters are counted as they are.
        layers: Its layers with their geometry.
    """
    counted = {layer.name for layer in layers if layer.kind not in ("recurrent", "other")}
    return sum(p.numel() for name, p in model.named_parameters() if name.rpartition(".")[0] not in counted)


def _has_tensors(module: nn.Module) -> bool:
    return is_sliceable(module) or bool(module._parameters) or any(b is not None for b in module._buffers.values())


def _geometry(name: str, module: nn.Module, inputs: Any, output: Any, *, samples: int) -> Layer:
    bias = getattr(module, "bias", None) is not None
    written = next(iter(tensors(output)), None)
    numbers = 0 if written is None else written.numel()
    if isinstance(module, CONVOLUTIONS):
        return Layer(
            name, "conv", module.out_channels, module.in_channels // module.groups, math.prod(module.kernel_size),
            numbers // (module.out_channels * samples), int(module.stride[0]), bias, is_depthwise(module),
        )  # fmt: skip
    if isinstance(module, TRANSPOSED):
        read = next(iter(tensors(inputs))).numel()
        return Layer(
            name, "conv", module.out_channels, module.in_channels // module.groups, math.prod(module.kernel_size),
            read // (module.in_channels * samples), int(module.stride[0]), bias, is_depthwise(module),
        )  # fmt: skip
    outputs = out_size(module) if is_sliceable(module) else 1
    positions = numbers // (outputs * samples)
    if isinstance(module, EMBEDDINGS):
        return Layer(name, "embedding", outputs, module.num_embeddings, 1, positions, 1, False, False)
    if isinstance(module, (*RECURRENT, *CELLS)):
        return Layer(name, "recurrent", outputs, module.input_size, 1, positions, 1, bias, False)
    if isinstance(module, ATTENTIONS):
        return Layer(name, "other", outputs, outputs, 1, positions, 1, bias, False)
    if isinstance(module, (*PER_CHANNEL, *OVER_CHANNELS)):
        weight, statistics = getattr(module, "weight", None), getattr(module, "running_mean", None)
        return Layer(name, "norm", outputs, int(weight is not None), 1, 0, 1, bias, False, 2 * (statistics is not None))
    if is_sliceable(module):
        size = sum(tensor.numel() for tensor in [module.weight] if isinstance(tensor, Tensor))
        return Layer(name, "linear", outputs, size // outputs, 1, positions, 1, bias, False)
    return Layer(name, "other", 1, 1, 1, numbers // samples, 1, False, False)
