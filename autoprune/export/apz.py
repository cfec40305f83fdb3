"""A pruned network as one small file, `.apz`, and back: zeros and shared values take next to no room in it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.coding.apz_file import ApzFile, apz_bytes
from autoprune.coding.byte_reader import DamagedBytes
from autoprune.coding.coded_tensor import NUMBERS, TensorBits
from autoprune.coding.predicted_size import predicted_bytes
from autoprune.export.network_shape import some
from autoprune.export.shape_record import checked_record, fill_network, shape_record, shaped_network
from autoprune.files import atomic_write
from autoprune.task.task import Architecture
from autoprune.task.weights import untied

APZ_SUFFIX = ".apz"
LARGEST_CODED = 5_000_000  # entries of a network that is coded only to know its size
SIGNED = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # bytes → what torch views patterns as


def save_apz(network: nn.Module, path: Path | str, *, architecture: Architecture | None) -> int:
    """The file holds the network, bit for bit.

    >>> save_apz(network, "small.apz", architecture=None)  # doctest: +SKIP
    27184

    Args:
        network: Any network that pruning can make; it stays as it is.
        path: Of the file, which ends in .apz.
        architecture: How to build the dense network again; without it, loading asks for the dense network itself.

    Returns:
        The file's size in bytes.

    Raises:
        ValueError: The name does not end in .apz, or a tensor is of a dtype that the format lacks.
        TypeError: The network's state holds something other than tensors.
    """
    return write_apz(path, shape_record(network, architecture), state_of(network))


def write_apz(path: Path | str, record: Mapping[str, Any], state: Mapping[str, Tensor]) -> int:
    """The file holds the tensors, bit for bit, of a network of that shape.

    Args:
        path: Of the file, which ends in .apz.
        record: What `shape_record` returns.
        state: Name → tensor; tied weights once.

    Returns:
        The file's size in bytes.
    """
    path = Path(path)
    if path.suffix != APZ_SUFFIX:
        raise ValueError(f"the file's name must end in {APZ_SUFFIX}, or autoprune.load does not know it; got {path}")
    data = encode_state(record, state)
    with atomic_write(path, durable=True) as partial:
        partial.write_bytes(data)
    return len(data)


def encode_state(record: Mapping[str, Any], state: Mapping[str, Tensor]) -> bytes:
    """Returns the bytes of the file that `write_apz` writes; -0 is written as 0.

    Args:
        record: What was written, in JSON's values.
        state: Tensors by name.
    """
    shape = {key: value for key, value in record.items() if key != "weights"}  # the file has its own checksum
    # A product with a mask leaves -0 where weights are gone; adding 0 makes it 0, which is equal, and is not stored.
    whole = {name: tensor + 0 if tensor.is_floating_point() else tensor for name, tensor in sorted(state.items())}
    tensors = {name: bits_of(tensor) for name, tensor in whole.items()}
    return apz_bytes(json.dumps(shape, separators=(",", ":")).encode(), tensors)


def apz_size(network: nn.Module, *, architecture: Architecture | None = None) -> dict[str, int]:
    """Returns how large the network's file is: {"apz": bytes}, or {"apz_predicted": bytes} where coding takes minutes.

    Args:
        network: One of more than 5 million entries is predicted from entropies.
        architecture: What the file would say of how the dense network is built.
    """
    record, state = shape_record(network, architecture), state_of(network)
    if sum(tensor.numel() for tensor in state.values()) <= LARGEST_CODED:
        return {"apz": len(encode_state(record, state))}
    tensors = {name: bits_of(tensor + 0) for name, tensor in state.items()}
    return {"apz_predicted": round(predicted_bytes(tensors)) + len(json.dumps(record)) // 4}


def load_apz(path: Path | str, *, model: nn.Module | None = None) -> nn.Module:
    """Returns the network that `save_apz` wrote, in eval mode on the CPU.

    Nothing of the file is executed or unpickled, and no tensor is decoded that is not the network's own.

    Args:
        path: The file, which may come from anywhere.
        model: The dense network to shape it from, copied; by default the one that the file's architecture builds.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is truncated, altered, or of another network.
        TypeError: `model` is no network.
    """
    path = Path(path)
    data = path.read_bytes()
    try:
        file = ApzFile.parse(data)
    except DamagedBytes as error:
        raise ValueError(f"{path} cannot be read: {error}; it is damaged or no .apz file") from error
    network = shaped_network(checked_record(file.record, source=path), source=path, model=model)
    own = untied(network.state_dict(keep_vars=True), first=file.tensors)
    if own.keys() != file.tensors.keys():
        lacking, foreign = some(own.keys() - file.tensors.keys()), some(file.tensors.keys() - own.keys())
        raise ValueError(f"{path} is of another network: it lacks {lacking} and holds {foreign} besides")
    state = {}
    for name, coded in file.tensors.items():
        if coded.head.shape != tuple(own[name].shape):  # so that what is decoded is no larger than the network
            raise ValueError(
                f"{path}: {name!r} has shape {list(coded.head.shape)}, but its layer needs {list(own[name].shape)}"
            )
        try:
            state[name] = tensor_of(coded.decode())
        except DamagedBytes as error:
            raise ValueError(f"{path}: {name!r} cannot be decoded: {error}; the file is damaged") from error
    fill_network(network, state, path)
    return network.eval()


def state_of(network: nn.Module) -> dict[str, Tensor]:
    """Returns the network's tensors by name, tied weights once. Raises TypeError for a state that is not of tensors."""
    state = dict(network.state_dict())
    strange = sorted(name for name, value in state.items() if not isinstance(value, Tensor))
    if strange:
        raise TypeError(f"the network's state holds {strange}, which are not tensors; files store tensors only")
    return {name: value.detach().cpu() for name, value in untied(state).items()}


def bits_of(tensor: Tensor) -> TensorBits:
    """Returns the bit patterns of a tensor. Raises ValueError for a dtype that the format lacks."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in NUMBERS:
        raise ValueError(f"a tensor of dtype {dtype} cannot be written as .apz, which has {list(NUMBERS)}")
    size = tensor.element_size()
    patterns = tensor.detach().cpu().contiguous().view(SIGNED[size]).numpy()
    return TensorBits(dtype, patterns.view(f"<u{size}"))


def tensor_of(bits: TensorBits) -> Tensor:
    """Returns the tensor of these bit patterns."""
    patterns = np.array(bits.bits).view(f"<i{bits.bits.dtype.itemsize}")
    dtype: torch.dtype = getattr(torch, bits.dtype)
    if dtype == torch.bool and (bits.bits > 1).any():
        raise DamagedBytes("a truth value that is neither 0 nor 1")
    return torch.from_numpy(patterns).view(dtype)
