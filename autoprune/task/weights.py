"""A network's weights as a safetensors file, and back."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from autoprune.files import atomic_write


def save_weights(model: nn.Module, path: Path) -> None:
    """The model's weights as a safetensors file, tied ones once, which appears whole or not at all.

    Args:
        model: The dense network, in eval mode.
        path: The file or folder.
    """
    with atomic_write(path) as partial:
        safetensors.torch.save_file({name: t.contiguous() for name, t in untied(model.state_dict()).items()}, partial)


def load_weights(model: nn.Module, path: Path) -> nn.Module:
    """The model with the weights of a safetensors file, floating-point ones converted to the model's own precision.

    Args:
        model: The dense network, in eval mode.
        path: The file or folder.

    Raises:
        ValueError: The file is damaged or belongs to another architecture.
    """
    try:
        weights = safetensors.torch.load_file(path)
        own = model.state_dict(keep_vars=True)
        _, unexpected = model.load_state_dict(weights, strict=False)
        lacking = sorted(untied(own, first=weights).keys() - weights.keys())
        if lacking or unexpected:
            raise RuntimeError(f"it lacks {lacking} and holds {unexpected} besides")
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged or not this network's: {error}; delete it or restore it") from error
    return model


def untied(state: Mapping[str, Tensor], *, first: Mapping[str, object] | None = None) -> dict[str, Tensor]:
    """The state without tensors that share another one's memory: of those, the one in `first`, or the first, stays.

    Args:
        state: Tensors by name.
        first: Tensors that are kept as they are, where others share them.
    """
    names = sorted(state, key=lambda name: name not in first) if first is not None else list(state)
    kept: dict[tuple[int, torch.Size], str] = {}
    for name in names:
        tensor = state[name]
        # what holds nothing shares nothing
        kept.setdefault((tensor.data_ptr() if tensor.numel() else -len(kept) - 1, tensor.shape), name)
    return {name: state[name] for name in state if name in set(kept.values())}
