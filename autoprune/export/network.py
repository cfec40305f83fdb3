"""A pruned network to disk and back, without pickle: its weights in safetensors, its shape in JSON."""

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from autoprune.export.builder import build_dense
from autoprune.export.network_shape import layer_widths, other_shapes, resize, resize_others, some
from autoprune.export.patterns import described, narrow
from autoprune.files import atomic_write
from autoprune.structure.edit import number_caches
from autoprune.structure.pretrained_guard import refuse_save_pretrained, tensor_shapes
from autoprune.structure.skipped_modules import Skipped
from autoprune.task.task import Architecture
from autoprune.task.weights import untied

# 2: of a network with patterns, which readers of 1 would lose; 3: with other shapes than those of plain layers
SCHEMAS = (1, 2, 3)
WEIGHTS_FILE, SHAPE_FILE = "network.safetensors", "network.json"
RUN_FOLDER = "network"  # where in a run's folder its network lies
TOKENIZER_FOLDER = "tokenizer"  # where in a saved network's folder its tokenizer lies


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
    patterns, others = described(network), other_shapes(network)
    record: dict[str, Any] = {
        "schema": 3 if others else 2 if patterns else 1,
        "architecture": None if architecture is None else asdict(architecture),
        "layers": layer_widths(network),
        "skipped": {name: layer.returns for name, layer in network.named_modules() if isinstance(layer, Skipped)},
        "weights": {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()},
    }
    if patterns:
        record["patterns"] = patterns
    if others:
        record["others"] = others
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
        resize_others(network, record["others"])
        resize(network, record["layers"])
        narrow(network, record["patterns"])
    except ValueError as error:
        raise ValueError(f"{source} does not fit a {type(network).__name__}: {error}") from error
    _fill(network, state, folder / WEIGHTS_FILE)
    refuse_save_pretrained(network, dense=dense_shapes)
    return network.eval()


def pass_over(network: nn.Module, skipped: Mapping[str, Any]) -> None:
    """Puts what hands on its inputs in the place of the modules that a plan left out. Raises ValueError for others."""
    for name, returns in skipped.items():
        if not name or name not in dict(network.named_modules()):
            raise ValueError(f"it passes over {name!r}, which is not there")
        network.set_submodule(name, Skipped(returns))
    number_caches(network)


def _fill(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Loads the weights strictly: same names, same shapes; a lower or higher floating-point precision is taken over."""
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


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(_read(path))
    except ValueError as error:  # neither JSON nor UTF-8
        raise ValueError(f"{path} is truncated or altered: {error}") from error
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema not in SCHEMAS:
        raise ValueError(
            f"{path} has schema {schema!r}, this autoprune reads schemas 1 to {SCHEMAS[-1]}; use the "
            "version that wrote it"
        )
    record = {"skipped": {}, "patterns": [], "others": {}, **record}
    kinds = {"layers": dict, "weights": dict, "skipped": dict, "patterns": list, "others": dict}
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


def _serialized(network: nn.Module) -> bytes:
    state = dict(network.state_dict())
    strange = sorted(name for name, value in state.items() if not isinstance(value, Tensor))
    if strange:
        raise TypeError(f"the network's state holds {strange}, which are not tensors; safetensors stores tensors only")
    # Tied weights once. Cloned, because safetensors refuses tensors that are views of others.
    kept = {name: value.detach().cpu().clone().contiguous() for name, value in untied(state).items()}
    return safetensors.torch.save(kept)
