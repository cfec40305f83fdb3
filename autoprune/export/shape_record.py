"""What a file says of a network beside its weights, and the network that it is filled into."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.export.builder import build_dense
from autoprune.export.network_shape import layer_widths, other_shapes, resize, resize_others, some
from autoprune.export.patterns import described, narrow
from autoprune.structure.edit import number_caches
from autoprune.structure.pretrained_guard import guard_save_pretrained, tensor_shapes
from autoprune.structure.skipped_modules import Skipped
from autoprune.task.copies import copied
from autoprune.task.task import Architecture
from autoprune.task.weights import untied

# 2: of a network with patterns, which readers of 1 would lose; 3: with other shapes than those of plain layers
SCHEMAS = (1, 2, 3)


def shape_record(network: nn.Module, architecture: Architecture | None) -> dict[str, Any]:
    """Returns what a file says of a network beside its weights: how the dense one is built, and how it differs.

    Args:
        network: The network.
        architecture: How the dense network is built; None where only its owner knows.
    """
    patterns, others = described(network), other_shapes(network)
    record: dict[str, Any] = {
        "schema": 3 if others else 2 if patterns else 1,
        "architecture": None if architecture is None else asdict(architecture),
        "layers": layer_widths(network),
        "skipped": {name: layer.returns for name, layer in network.named_modules() if isinstance(layer, Skipped)},
    }
    return record | ({"patterns": patterns} if patterns else {}) | ({"others": others} if others else {})


def checked_record(content: bytes, *, source: Path) -> dict[str, Any]:
    """Returns the record of a network's shape that a file holds as JSON.

    Args:
        content: The JSON.
        source: The file, which may come from anywhere; errors name it.

    Raises:
        ValueError: It is no such record, or of another schema.
    """
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:  # neither JSON nor UTF-8
        raise ValueError(f"{source} is truncated or altered: {error}") from error
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema not in SCHEMAS:
        raise ValueError(
            f"{source} has schema {schema!r}, this autoprune reads schemas 1 to {SCHEMAS[-1]}; use the "
            "version that wrote it"
        )
    record = {"skipped": {}, "patterns": [], "others": {}, **record}
    kinds = {"layers": dict, "skipped": dict, "patterns": list, "others": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(record.get(key), kind)]
    wrong += [] if "architecture" in record else ["architecture"]
    if not wrong and not all(isinstance(sizes, dict) for sizes in record["layers"].values()):
        wrong.append("layers")
    if wrong:
        raise ValueError(f"{source} is altered: its {' and '.join(wrong)} are missing, or not what save_network writes")
    return record


def shaped_network(record: Mapping[str, Any], *, source: Path, model: nn.Module | None) -> nn.Module:
    """Returns a network of the recorded shape, whose resized tensors hold nothing yet.

    Args:
        record: What `checked_record` returned.
        source: The file it was read from; errors name it.
        model: The dense network, copied; None for the one that the record's architecture builds.

    Raises:
        ValueError: The record is of another network.
        TypeError: `model` is no network.
    """
    if model is not None and not isinstance(model, nn.Module):
        what = f"the class {model.__name__}" if isinstance(model, type) else repr(model)
        raise TypeError(f"model must be the dense network, an nn.Module, got {what:.100}")
    network = build_dense(record["architecture"], source=source) if model is None else copied(model).cpu()
    dense_shapes = tensor_shapes(network)
    try:
        pass_over(network, record["skipped"])
        resize_others(network, record["others"])
        resize(network, record["layers"])
        narrow(network, record["patterns"])
    except ValueError as error:
        raise ValueError(f"{source} does not fit a {type(network).__name__}: {error}") from error
    guard_save_pretrained(network, dense=dense_shapes)
    return network


def pass_over(network: nn.Module, skipped: Mapping[str, Any]) -> None:
    """Puts what hands on its inputs in the place of the modules that a plan left out.

    Args:
        network: The network.
        skipped: Module → what stands in for it.

    Raises:
        ValueError: It has no such modules.
    """
    for name, returns in skipped.items():
        if not name or name not in dict(network.named_modules()):
            raise ValueError(f"it passes over {name!r}, which is not there")
        network.set_submodule(name, Skipped(returns))
    number_caches(network)


def fill_network(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """The network has the weights of a file: same names, same shapes; a floating-point precision is taken over.

    Args:
        network: Is changed in place.
        state: Name → tensor; tied weights once.
        path: Of the file; errors name it.

    Raises:
        ValueError: The state is another network's.
    """
    own = network.state_dict(keep_vars=True)
    own = untied(own, first=state)
    if state.keys() != own.keys():
        lacking, foreign = some(own.keys() - state.keys()), some(state.keys() - own.keys())
        raise ValueError(f"{path} is of another network: it lacks {lacking} and holds {foreign} besides")
    for name, stored in sorted(state.items()):
        if stored.shape != own[name].shape:
            raise ValueError(
                f"{path}: {name!r} has shape {list(stored.shape)}, but its layer needs {list(own[name].shape)}"
            )
        if stored.dtype != own[name].dtype:
            if not (stored.is_floating_point() and own[name].is_floating_point()):
                raise ValueError(f"{path}: {name!r} is {stored.dtype}, but its layer needs {own[name].dtype}")
            own[name].data = own[name].data.to(stored.dtype)
    with torch.no_grad():
        for name, stored in state.items():
            own[name].copy_(stored)
