"""What the program that calls may have set in torch, and what does not hold for the work on a task."""

import contextlib
import threading
from collections.abc import Iterator

import torch

_ONE_AT_A_TIME = threading.RLock()  # networks are masked and watched in place


@contextlib.contextmanager
def plain_torch(*, alone: bool = False) -> Iterator[None]:
    """In the block no inference mode and no default device of the caller's holds: tensors lie where the task says.

    Args:
        alone: Whether other threads' such blocks wait, because the block changes a network for a while.
    """
    device = torch.get_default_device()
    with (
        _ONE_AT_A_TIME if alone else contextlib.nullcontext(),
        torch.inference_mode(False),
        contextlib.nullcontext() if device.type == "cpu" else torch.device("cpu"),
    ):
        yield
