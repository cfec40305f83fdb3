"""What keeps a network from being differentiated, and is passed over while its couplings are looked for."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch.utils import checkpoint


@contextmanager
def differentiated() -> Iterator[None]:
    """Everything that runs while the context is open leaves a graph of derivatives that stays as it was.

    Tensors that are written over later are kept as they were, checkpoints store instead of running a second time, and
    inference mode does nothing; `torch.no_grad` is the business of whoever opens this.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda tensor: tensor))
        for owner, name, instead in (
            (torch._C, "_InferenceMode", lambda *_: nullcontext()),
            (checkpoint.CheckpointFunction, "apply", lambda function, _, *inputs: function(*inputs)),
            (checkpoint, "_checkpoint_without_reentrant_generator", _once),
        ):
            stack.enter_context(_replaced(owner, name, instead))
        yield


def _once(*_: Any, **__: Any) -> Iterator[None]:
    yield


@contextmanager
def _replaced(owner: Any, name: str, instead: Callable[..., Any]) -> Iterator[None]:
    """The attribute is another one while the context is open."""
    inherited, own = name not in vars(owner), getattr(owner, name)
    setattr(owner, name, instead)
    try:
        yield
    finally:
        if inherited:
            delattr(owner, name)
        else:
            setattr(owner, name, own)
