"""What stands in the place of a module that is passed over."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args

import torch
from torch import Tensor, nn

from autoprune.structure.groups import Returns


class Skipped(nn.Module):
    """A module without parameters that hands on what it is given, as `returns` says (structure.groups.Skip)."""

    def __init__(self, returns: Returns) -> None:
        super().__init__()
        if returns not in get_args(Returns):
            raise ValueError(f"a module that is passed over returns one of {list(get_args(Returns))}, not {returns!r}")
        self.returns = returns

    def forward(self, *arguments: Any, **named: Any) -> Any:
        values = (*arguments, *named.values())  # transformers name their first argument in some places
        tensor: Tensor = values[1] if self.returns == "second" else values[0]
        if self.returns.startswith("zeros"):
            tensor = torch.zeros_like(tensor)
        return (tensor, None) if self.returns.endswith(", None") else tensor

    def extra_repr(self) -> str:
        return f"returns={self.returns!r}"


@contextmanager
def patched_forward(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """These are called in the modules' place while the context is open.

    A forward of the module's own, as hooks that move tensors between devices leave it, comes back after.
    """
    own = {module: module.__dict__["forward"] for module in forwards if "forward" in module.__dict__}
    try:
        for module, forward in forwards.items():
            module.__dict__["forward"] = forward
        yield
    finally:
        for module in forwards:
            module.__dict__.pop("forward", None)
            if module in own:
                module.__dict__["forward"] = own[module]
