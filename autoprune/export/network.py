"""A pruned network to disk and back, without pickle: its weights in safetensors, its shape in JSON."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from autoprune.export.apz import APZ_SUFFIX, load_apz, state_of
from autoprune.export.shape_record import checked_record, fill_network, shape_record, shaped_network
from autoprune.files import atomic_write
from autoprune.ranges import check_value
from autoprune.runs import resume_command
from autoprune.task.task import Architecture

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
    record = shape_record(network, architecture)
    record["weights"] = {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
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
        path: The run's folder, one that `save_network` wrote, or a file that `save_apz` wrote.
        model: The dense network, where it is not one of autoprune's own; it stays as it is.

    Raises:
        FileNotFoundError: The folder holds no network; the sentence says what it holds instead.
        ValueError: A file of it is truncated, altered, or of another network than `model`.
        TypeError: `model` is no network.
    """
    check_value(path, str | Path, "the run's folder")
    check_value(model, nn.Module | None, "model")
    path = Path(path)
    if path.is_file() and path.suffix == APZ_SUFFIX:
        return load_apz(path, model=model)
    return load_network(network_folder(path), model=model)


def network_folder(path: Path | str) -> Path:
    """Returns the folder of a run, or of `save_network` itself, that holds a network's two files.

    Raises:
        FileNotFoundError: There is none; the sentence says what there is instead.
    """
    path = Path(path)
    for folder in (path, path / RUN_FOLDER):
        if (folder / SHAPE_FILE).is_file() or (folder / WEIGHTS_FILE).is_file():
            return folder
    raise FileNotFoundError(f"{path} holds no pruned network: {_what_it_is(path)}")


def read_network(folder: Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Returns the record of a saved network's shape, and its tensors, without building the network.

    Args:
        folder: What `save_network` was given.

    Raises:
        FileNotFoundError: One of the two files is missing.
        ValueError: A file, which is named, is truncated or altered.
    """
    record = read_record(folder)
    return record, _read_weights(Path(folder) / WEIGHTS_FILE, record["weights"])


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
        return f"the run is not finished; `{resume_command(path)}` goes on with it"
    return f"the run ended before it was saved; result.json says why, and `{resume_command(path)}` tries again"


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
    folder = Path(folder)
    record, state = read_network(folder)
    network = shaped_network(record, source=folder / SHAPE_FILE, model=model)
    fill_network(network, state, folder / WEIGHTS_FILE)
    return network.eval()


def read_record(folder: Path | str) -> dict[str, Any]:
    """Returns the record of a saved network's shape, without its tensors.

    Args:
        folder: What `save_network` was given.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is altered.
    """
    path = Path(folder) / SHAPE_FILE
    record = checked_record(_read(path), source=path)
    weights = record.get("weights")
    if not isinstance(weights, dict) or not {"bytes", "sha256"} <= weights.keys():
        raise ValueError(f"{path} is altered: its weights are missing, or not what save_network writes")
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
    # Cloned, because safetensors refuses tensors that are views of others.
    return safetensors.torch.save({name: tensor.clone().contiguous() for name, tensor in state_of(network).items()})
