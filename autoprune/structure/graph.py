"""Finds the groups of a network. The only file that knows Torch-Pruning (Fang et al., arXiv 2301.12900)."""

import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeGuard

import numpy as np
import torch
import torch_pruning
from torch import Tensor, nn

from autoprune.structure.edit import CONVOLUTIONS, SLICEABLE, evaluating, is_depthwise
from autoprune.structure.families import FAMILIES, model_type
from autoprune.structure.groups import (
    Axis,
    Granularity,
    Group,
    IntArray,
    Layer,
    Member,
    Structure,
    holds,
    levels_of,
)
from autoprune.structure.kinds import DEFAULT_KINDS
from autoprune.structure.transformer import transformer_structure
from autoprune.structure.verify import OUTPUT, sampled, verified
from autoprune.task.task import first_outputs

PRUNE = {"conv": torch_pruning.prune_conv_out_channels, "linear": torch_pruning.prune_linear_out_channels}


def find_structure(
    model: nn.Module,
    example_input: Tensor,
    *,
    keep: frozenset[str] = frozenset(),
    prune: tuple[str, ...] | None = None,
    round_to: int = 1,
    min_units: int = 1,
) -> Structure:
    """The groups of coupled layers of `model`, verified: removing units equals masking them.

    Every group of a traced network is verified; of a transformer, whose parts are known by its type, one of each kind
    and all together.
    prune: the kinds of groups of a transformer (structure/kinds.py); None: heads and neurons.

    keep: layers whose outputs stay whole, or modules that hold such layers. round_to: kept units are multiples of it
    (or all of the group's). min_units: the fewest units that a group keeps.
    Layers that cannot be pruned are listed with the reason. The network is looked at in eval mode, whatever its own.
    Raises ValueError where the network cannot be traced, or nothing in it can be pruned.
    """
    if round_to < 1 or min_units < 1:
        raise ValueError(f"round_to and min_units must be at least 1, got {round_to} and {min_units}")
    if model_type(model) in FAMILIES:
        structure = transformer_structure(
            model, example_input, prune=prune or DEFAULT_KINDS, keep=keep, round_to=round_to, min_units=min_units
        )
        with evaluating(model):
            return sampled(structure, model, example_input)
    if prune is not None:
        raise ValueError(
            f"structure.prune={list(prune)} is for transformers of the types {sorted(FAMILIES)}; this "
            f"{type(model).__name__} is {model_type(model) or 'none'}. Leave it out to prune channels and neurons"
        )
    with evaluating(model):
        return _find_structure(model, example_input, keep=keep, round_to=round_to, min_units=min_units)


def _find_structure(
    model: nn.Module, example_input: Tensor, *, keep: frozenset[str], round_to: int, min_units: int
) -> Structure:
    layers, outputs, writers = _run(model, example_input)
    idle = sorted(name for name in keep if not any(holds(name, layer.name) for layer in layers))
    if idle:
        raise ValueError(f"keep names {idle}, which hold no layer that runs; the layers are {[x.name for x in layers]}")
    if not torch.isfinite(outputs).all():
        raise ValueError("the network's outputs for the example input hold NaN or infinity; its weights may be broken")
    groups: list[Group] = []
    unprunable: dict[str, str] = {}
    for name, members, reason in _couplings(model, example_input, {layer.name: layer for layer in layers}):
        written = {name, *(m.layer for m in members if m.axis == "out")}
        if written & writers:
            reason = OUTPUT
        kept_whole = sorted(layer for layer in written if any(holds(k, layer) for k in keep))
        if kept_whole:
            reason = f"task.keep names {', '.join(kept_whole)}"
        levels = levels_of(len(members[0].positions), round_to=round_to, min_units=min_units) if members else ()
        if not reason and len(levels) < 2:
            units = len(members[0].positions)
            reason = f"min_units={min_units} and round_to={round_to} leave no choice for its {units} units"
        if reason:
            unprunable[name] = reason
        else:
            granularity: Granularity = "neuron" if isinstance(model.get_submodule(name), nn.Linear) else "channel"
            groups.append(Group(name, granularity, len(members[0].positions), members, levels))
    counted = {layer.name for layer in layers}
    other = sum(
        parameter.numel() for name, parameter in model.named_parameters() if name.rpartition(".")[0] not in counted
    )
    structure = verified(Structure(tuple(groups), layers, unprunable, other), model, example_input)
    if not structure.groups:
        raise ValueError(f"nothing in this network can be pruned: {structure.unprunable}")
    return structure


def _couplings(
    model: nn.Module, example_input: Tensor, layers: Mapping[str, Layer]
) -> Iterator[tuple[str, tuple[Member, ...], str | None]]:
    """For every set of coupled layers: its name, its members, and why it cannot be pruned, if so."""
    graph, names = _trace(model, example_input), {module: name for name, module in model.named_modules()}
    seen: set[str] = set()
    for layer in layers.values():
        root = model.get_submodule(layer.name)
        if layer.kind == "norm" or layer.name in seen:
            continue
        if is_depthwise(root):
            yield layer.name, (), "its channels are the network's inputs"
            continue
        try:
            items = graph.get_pruning_group(root, PRUNE[layer.kind], idxs=list(range(layer.outputs)))
        except ValueError:
            yield layer.name, (), "Torch-Pruning cannot follow its outputs to the network's"
            continue
        reason, touched = None, []
        for item in items:
            module = item.dep.target.module
            kind = type(module).__name__
            if isinstance(module, nn.PReLU) and module.num_parameters == 1:
                continue  # one slope for all channels: nothing to cut
            if module in names and (isinstance(module, SLICEABLE) or any(True for _ in module.parameters())):
                axis: Axis = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
                touched.append((names[module], axis, np.asarray(item.idxs), np.asarray(item.root_idxs)))
                if not isinstance(module, SLICEABLE):
                    reason = f"reaches {names[module]}, a {kind}, whose outputs depend on how many units there are"
                elif names[module] not in layers:
                    reason = f"reaches {names[module]}, which the example input does not run"
                elif axis == "in" and _is_grouped(module) and len(item.idxs) < module.in_channels:
                    reason = f"fills some of the convolution groups of {names[module]}, and others fill the rest"
            elif isinstance(module, nn.Parameter):
                reason = "reaches a parameter that belongs to no layer"
            elif kind == "_OutputOp":
                reason = OUTPUT
        seen |= {name for name, axis, *_ in touched if axis == "out"}
        if len({(name, axis) for name, axis, *_ in touched}) < len(touched):
            reason = reason or "one of its layers is used twice"
        if reason:
            yield layer.name, tuple(Member(n, a, i[:, None]) for n, a, i, _ in touched), reason
            continue
        unit_of = _units(layer.outputs, [(model.get_submodule(n), a, i, r) for n, a, i, r in touched])
        if unit_of.max() == 0 and layer.outputs > 1:
            yield layer.name, (), "grouped convolutions tie all its channels into one unit"
            continue
        yield layer.name, tuple(_member(model, n, a, i, unit_of[r]) for n, a, i, r in touched), None


def _trace(model: nn.Module, example_input: Tensor) -> "torch_pruning.DependencyGraph":
    trainable = {p: p.requires_grad for p in model.parameters()}
    try:
        for parameter in trainable:
            parameter.requires_grad_(True)  # Torch-Pruning follows the autograd graph
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")  # unwrapped parameters: named in the reason instead
            return torch_pruning.DependencyGraph().build_dependency(model, example_inputs=(example_input,))
    except Exception as error:
        raise ValueError(
            f"Torch-Pruning cannot trace {type(model).__name__} with an example input of shape "
            f"{tuple(example_input.shape)}: {type(error).__name__}: {error}. The forward pass must run on the example "
            "input and be differentiable from input to output"
        ) from error
    finally:
        for parameter, flag in trainable.items():
            parameter.requires_grad_(flag)
            parameter.grad = None


def _units(channels: int, touched: list[tuple[nn.Module, Axis, IntArray, IntArray]]) -> IntArray:
    """Which unit each of the root's channels belongs to, [channels].

    A grouped convolution keeps equally many channels in each of its groups, so channels at the same place in different
    groups are one unit; channels are units of their own everywhere else.
    """
    period = channels
    for module, axis, *_ in touched:
        if _is_grouped(module):
            width = module.in_channels if axis == "in" else module.out_channels
            period = math.gcd(period, width // module.groups)
    return np.arange(channels) % period


def _member(model: nn.Module, name: str, axis: Axis, entries: IntArray, units: IntArray) -> Member:
    """entries [n]: places on the layer's axis; units [n]: the unit that each of them belongs to."""
    layer = model.get_submodule(name)
    if axis == "in" and _is_grouped(layer):
        entries = entries % (layer.in_channels // layer.groups)  # counted within one convolution group
    pairs = np.unique(np.stack([units, entries]), axis=1)  # sorted by unit, then by entry
    return Member(name, axis, pairs[1].reshape(units.max() + 1, -1))


def _is_grouped(layer: nn.Module) -> TypeGuard[nn.Conv1d | nn.Conv2d | nn.Conv3d]:
    return isinstance(layer, CONVOLUTIONS) and layer.groups > 1 and not is_depthwise(layer)


def _run(model: nn.Module, example_input: Tensor) -> tuple[tuple[Layer, ...], Tensor, set[str]]:
    """The layers that run, in order; the outputs that are judged; the layers that return outputs."""
    ran: dict[str, Layer] = {}
    written: list[tuple[str, Tensor]] = []

    def record(name: str, module: nn.Module, output: Tensor) -> None:
        written.append((name, output))
        layer = _geometry(name, module, output, samples=len(example_input))
        ran[name] = replace(layer, positions=layer.positions + ran[name].positions) if name in ran else layer

    hooks = [
        module.register_forward_hook(lambda m, _, output, name=name: record(name, m, output))
        for name, module in model.named_modules()
        if isinstance(module, SLICEABLE)
    ]
    try:
        with torch.inference_mode():
            outputs = model(example_input)
    except Exception as error:
        raise ValueError(
            f"the network does not run on its example input of shape {tuple(example_input.shape)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    returned = list(_tensors(outputs))
    writers = {name for name, output in written if any(output is tensor for tensor in returned)}
    return tuple(ran.values()), first_outputs(outputs), writers


def _geometry(name: str, module: nn.Module, output: Tensor, *, samples: int) -> Layer:
    has_bias = getattr(module, "bias", None) is not None
    if isinstance(module, CONVOLUTIONS):
        positions = output.numel() // (module.out_channels * samples)
        return Layer(
            name, "conv", module.out_channels, module.in_channels // module.groups, math.prod(module.kernel_size),
            positions, int(module.stride[0]), has_bias, is_depthwise(module),
        )  # fmt: skip
    if isinstance(module, nn.Linear):
        positions = output.numel() // (module.out_features * samples)
        return Layer(name, "linear", module.out_features, module.in_features, 1, positions, 1, has_bias, False)
    weight = getattr(module, "weight", None)
    outputs = module.num_parameters if isinstance(module, nn.PReLU) else int(module.num_features)  # type: ignore[arg-type]
    statistics = 2 * int(getattr(module, "running_mean", None) is not None)
    return Layer(name, "norm", outputs, int(weight is not None), 1, 0, 1, has_bias, False, statistics)


def _tensors(outputs: object) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists and mappings."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, Mapping | tuple | list):
        for part in outputs.values() if isinstance(outputs, Mapping) else outputs:
            yield from _tensors(part)
