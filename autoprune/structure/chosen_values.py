"""What a maximum, a minimum or a condition chooses its values from: all of that is read, not the chosen ones alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

EXTREMES = frozenset({torch.max, Tensor.max, torch.min, Tensor.min, torch.amax, Tensor.amax, torch.amin, Tensor.amin})
CHOOSING = frozenset(
    {torch.max, Tensor.max, torch.min, Tensor.min, torch.maximum, Tensor.maximum, torch.minimum, Tensor.minimum,
     torch.fmax, torch.fmin}
)  # fmt: skip


def choices_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """What a maximum, a minimum or a condition chooses from, in the shape of what it returns; nothing of others.

    Args:
        func: The function.
        args: What it is called with, by position.
        kwargs: What it is called with, by name.
    """
    tensors = [*args, *kwargs.values()]
    if func in (torch.where, Tensor.where) and len(tensors) == 3:
        rivals = tensors[1:] if func is torch.where else [tensors[0], tensors[2]]
    elif func in CHOOSING and len(tensors) > 1 and isinstance(tensors[1], Tensor):
        rivals = tensors[:2]
    elif func in EXTREMES:
        with torch._C.DisableTorchFunction():
            rivals = [torch.sum(*args, **kwargs)]
    else:
        return []
    return [rival for rival in rivals if isinstance(rival, Tensor) and rival.requires_grad]


def reading_all(result: Any, rivals: Sequence[Tensor]) -> Any:
    """The same values, read from all that they were chosen from: which one is the largest is an accident.

    Args:
        result: What a function returned, the values first.
        rivals: What it chose from, in the shape of these values.
    """
    with torch._C.DisableTorchFunction():
        values, *others = [result] if isinstance(result, Tensor) else result
        through = sum(rivals[1:], rivals[0])
        values = values.detach() + through - through.detach()
    return type(result)((values, *others)) if others else values
