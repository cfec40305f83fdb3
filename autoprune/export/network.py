"""A pruned network to disk and back, without pickle: its weights in safetensors, its shape in JSON."""

import copy
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from autoprune.export.builder import build_dense
from autoprune.export.patterns import described, narrow
from autoprune.files import atomic_write
from autoprune.structure.edit import CONVOLUTIONS, SLICEABLE, number_caches, tensor_axes
from autoprune.structure.families import FAMILIES, SIZES, model_type
from autoprune.structure.groups import Axis
from autoprune.structure.pretrained_guard import refuse_save_pretrained, tensor_shapes
from autoprune.structure.skipped_modules import Skipped
from autoprune.task.task import Architecture
from autoprune.task.weights import untied

SCHEMAS = (1, 2)  # 2: of a network with patterns, which readers of 1 would lose
WEIGHTS_FILE, SHAPE_FILE = "network.safetensors", "network.json"
RUN_FOLDER = "network"  # where in a run's folder its network lies
TOKENIZER_FOLDER = "tokenizer"  # where in a saved network's folder its tokenizer lies
WIDTHS = (
    "in_channels", "out_channels", "groups", "in_features", "out_features", "num_features", "num_parameters",
)  # fmt: skip

Shapes = dict[str, dict[str, int]]  # layer → its width attributes


def save_network(network: nn.Module, folder: Path | str, *, architecture: Architecture | None) -> None:
    """Writes `network.safetensors` and `network.json` into the folder; each appears whole or not at all.

    Args:
        network: Any network that pruning can make; it stays as it is.
        folder: Is made where it does not exist.
        architecture: How to build the dense network again; without it, loading asks for the dense network itself.

    Raises:
        TypeError: The network's state holds something other than tensors.
    """
    weights = _serialized(network)
    patterns = described(network)
    record: dict[str, Any] = {
        "schema": SCHEMAS[bool(patterns)],
        "architecture": None if architecture is None else asdict(architecture),
        "layers": layer_widths(network),
        "skipped": {name: layer.returns for name, layer in network.named_modules() if isinstance(layer, Skipped)},
        "weights": {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()},
    }
    if patterns:
        record["patterns"] = patterns
    for name, content in ((WEIGHTS_FILE, weights), (SHAPE_FILE, json.dumps(record, indent=1).encode())):
        with atomic_write(Path(folder) / name, durable=True) as partial:
            partial.write_bytes(content)


def network_bytes(network: nn.Module) -> int:
    """Returns the size of the safetensors file that `save_network` writes."""
    return len(_serialized(network))


def load_run(path: Path | str, *, model: nn.Module | None = None) -> nn.Module:
    """Returns the pruned network of a run, in eval mode on the CPU.

    Nothing of the folder is executed or unpickled.

    >>> network = autoprune.load("outputs/2026-11-30/12-00-00")

    Args:
        path: The run's folder, or one that `save_network` wrote.
        model: The dense network, where it is not one of autoprune's own; it stays as it is.

    Raises:
        FileNotFoundError: The folder holds no network; the sentence says what it holds instead.
        ValueError: A file of it is truncated, altered, or of another network than `model`.
        TypeError: `model` is no network.
    """
    path = Path(path)
    for folder in (path, path / RUN_FOLDER):
        if (folder / SHAPE_FILE).is_file() or (folder / WEIGHTS_FILE).is_file():
            return load_network(folder, model=model)
    raise FileNotFoundError(f"{path} holds no pruned network: {_what_it_is(path)}")


def _what_it_is(path: Path) -> str:
    if path.is_file():
        return f"it is a file; give the folder of a finished run, such as {path.parent}"
    if not path.is_dir():
        return "there is no such folder; give the folder of a finished run, which `autoprune search` prints"
    if (path / "policy.json").is_file():
        return "it is a policy; autoprune.Policy.load opens it"
    if (path / "config.json").is_file():
        return "it is a Hugging Face model, which transformers loads"
    runs = sorted(file.parent.parent.name for file in path.glob(f"*/{RUN_FOLDER}/{SHAPE_FILE}"))
    if runs:
        return f"it is a folder of {len(runs)} runs; give one of them, such as {path / runs[0]}"
    if not (path / "run.json").is_file():
        return f"it is not a run's folder: it has neither {RUN_FOLDER}/{SHAPE_FILE} nor {SHAPE_FILE}"
    if not (path / "result.json").is_file():
        return f"the run is not finished; `autoprune search resume={path}` goes on with it"
    return f"the run ended before it was saved; result.json says why, and `autoprune search resume={path}` tries again"


def load_network(folder: Path | str, *, model: nn.Module | None = None) -> nn.Module:
    """Returns the network that `save_network` wrote: a plain `nn.Module` with smaller layers, in eval mode on the CPU.

    Args:
        folder: What `save_network` was given.
        model: The dense network to shape it from, copied; by default the one that the file's architecture builds.

    Raises:
        FileNotFoundError: One of the two files is missing.
        ValueError: A file, which is named, is truncated, altered, or of another network.
        TypeError: `model` is no network.
    """
    if model is not None and not isinstance(model, nn.Module):
        what = f"the class {model.__name__}" if isinstance(model, type) else repr(model)
        raise TypeError(f"model must be the dense network, an nn.Module, got {what:.100}")
    folder = Path(folder)
    source = folder / SHAPE_FILE
    record = _read_record(source)
    state = _read_weights(folder / WEIGHTS_FILE, record["weights"])
    network = build_dense(record["architecture"], source=source) if model is None else copy.deepcopy(model).cpu()
    dense_shapes = tensor_shapes(network)
    try:
        pass_over(network, record["skipped"])
        resize(network, record["layers"])
        narrow(network, record["patterns"])
    except ValueError as error:
        raise ValueError(f"{source} does not fit a {type(network).__name__}: {error}") from error
    _fill(network, state, folder / WEIGHTS_FILE)
    refuse_save_pretrained(network, dense=dense_shapes)
    return network.eval()


def layer_widths(network: nn.Module) -> Shapes:
    """Returns the widths of every layer that pruning can make smaller, and what attentions of transformers count."""
    shapes = {}
    for name, layer in network.named_modules():
        attributes = WIDTHS if isinstance(layer, SLICEABLE) else SIZES if model_type(network) in FAMILIES else ()
        sizes = {attribute: layer.__dict__[attribute] for attribute in attributes if attribute in layer.__dict__}
        if sizes:
            shapes[name] = sizes
    return shapes


def pass_over(network: nn.Module, skipped: Mapping[str, Any]) -> None:
    """Puts what hands on its inputs in the place of the modules that a plan left out. Raises ValueError for others."""
    for name, returns in skipped.items():
        if not name or name not in dict(network.named_modules()):
            raise ValueError(f"it passes over {name!r}, which is not there")
        network.set_submodule(name, Skipped(returns))
    number_caches(network)


def resize(network: nn.Module, layers: Mapping[str, Mapping[str, int]]) -> None:
    """Gives every layer of the dense `network` its new widths, in place; the values of resized tensors are undefined.

    Raises ValueError where `layers` are not those of the network, or a width is not in [1, the dense width].
    """
    dense = layer_widths(network)
    if layers.keys() != dense.keys():
        raise ValueError(f"its layers differ: {_some(layers.keys() ^ dense.keys())} in one of the two only")
    for name, sizes in layers.items():
        if sizes.keys() != dense[name].keys():
            raise ValueError(f"layer {name!r} needs the widths {list(dense[name])}, got {list(sizes)}")
        for attribute, size in sizes.items():
            if type(size) is not int or not 1 <= size <= dense[name][attribute]:
                raise ValueError(
                    f"{attribute} of layer {name!r} must be in [1, {dense[name][attribute]}], got {size!r}"
                )
        layer = network.get_submodule(name)
        for attribute, size in sizes.items():
            setattr(layer, attribute, size)
        for axis, size in (_axis_sizes(layer) if isinstance(layer, SLICEABLE) else {}).items():
            for key, dim in tensor_axes(layer, axis):
                tensor = getattr(layer, key)
                # Through .data, so that tied weights stay tied.
                tensor.data = tensor.data.new_empty([*tensor.shape[:dim], size, *tensor.shape[dim + 1 :]])


def _axis_sizes(layer: nn.Module) -> dict[Axis, int]:
    if isinstance(layer, CONVOLUTIONS):
        if layer.in_channels % layer.groups or layer.out_channels % layer.groups:
            raise ValueError(
                f"{layer.groups} convolution groups do not divide {layer.in_channels} and {layer.out_channels} channels"
            )
        return {"out": layer.out_channels, "in": layer.in_channels // layer.groups}
    if isinstance(layer, nn.Linear):
        return {"out": layer.out_features, "in": layer.in_features}
    return {"out": layer.num_parameters if isinstance(layer, nn.PReLU) else int(layer.num_features)}  # type: ignore[arg-type]


def _fill(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Loads the weights strictly: same names, same shapes; a lower or higher floating-point precision is taken over."""
    own = network.state_dict(keep_vars=True)
    own = untied(own, first=state)
    if state.keys() != own.keys():
        lacking, foreign = _some(own.keys() - state.keys()), _some(state.keys() - own.keys())
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


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(_read(path))
    except ValueError as error:  # neither JSON nor UTF-8
        raise ValueError(f"{path} is truncated or altered: {error}") from error
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema not in SCHEMAS:
        raise ValueError(
            f"{path} has schema {schema!r}, this autoprune reads schema {' and '.join(map(str, SCHEMAS))}; use the "
            "version that wrote it"
        )
    record = {"skipped": {}, "patterns": [], **record}
    kinds = {"layers": dict, "weights": dict, "skipped": dict, "patterns": list}
    wrong = [key for key, kind in kinds.items() if not isinstance(record.get(key), kind)]
    wrong += [] if "architecture" in record else ["architecture"]
    if not wrong and not all(isinstance(sizes, dict) for sizes in record["layers"].values()):
        wrong.append("layers")
    if not wrong and not {"bytes", "sha256"} <= record["weights"].keys():
        wrong.append("weights")
    if wrong:
        raise ValueError(f"{path} is altered: its {' and '.join(wrong)} are missing, or not what save_network writes")
    return record


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path} does not exist; a saved network is {WEIGHTS_FILE} and {SHAPE_FILE} in one folder"
        ) from None


def _read_weights(path: Path, expected: Mapping[str, Any]) -> dict[str, Tensor]:
    weights = _read(path)
    if len(weights) != expected["bytes"]:
        raise ValueError(
            f"{path} has {len(weights)} bytes, {SHAPE_FILE} says {expected['bytes']}; "
            "it is truncated or of another network"
        )
    if hashlib.sha256(weights).hexdigest() != expected["sha256"]:
        raise ValueError(
            f"{path} is not the file that {SHAPE_FILE} was written with (SHA-256 differs); "
            "it is altered or of another network"
        )
    try:
        return safetensors.torch.load(weights)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error


def _some(names: Collection[str]) -> str:
    """The first three, and how many others there are."""
    others = f" and {len(names) - 3} others" if len(names) > 3 else ""
    return f"{sorted(names)[:3]}{others}"


def _serialized(network: nn.Module) -> bytes:
    state = dict(network.state_dict())
    strange = sorted(name for name, value in state.items() if not isinstance(value, Tensor))
    if strange:
        raise TypeError(f"the network's state holds {strange}, which are not tensors; safetensors stores tensors only")
    # Tied weights once. Cloned, because safetensors refuses tensors that are views of others.
    kept = {name: value.detach().cpu().clone().contiguous() for name, value in untied(state).items()}
    return safetensors.torch.save(kept)
