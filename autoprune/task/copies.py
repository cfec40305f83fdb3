"""Whether a network can be copied, as every smaller one is made of a copy."""

import copy

from torch import Tensor, nn


def check_copies(model: nn.Module) -> None:
    """Raises ValueError, which names the attribute, where the network cannot be copied; no tensor is copied for it.

    Args:
        model: The network.
    """
    own = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    try:
        copy.deepcopy(model, dict(own))
    except Exception as error:
        raise ValueError(
            f"the network cannot be copied, and every smaller one begins as a copy ({type(error).__name__}: {error}); "
            f"{_culprit(model, own)}, or write a __deepcopy__ that does without"
        ) from error


def _culprit(model: nn.Module, own: dict[int, Tensor]) -> str:
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            try:
                copy.deepcopy(value, dict(own)) if not key.startswith("_") else None
            except Exception:
                where = f"model.{name}.{key}" if name else f"model.{key}"
                return f"take {where}, a {type(value).__name__}, off it"
    return "take what cannot be copied off it"
