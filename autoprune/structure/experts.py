"""Experts that are not there: a router chooses among the others, as one that never had their rows would."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from autoprune.structure.skipped_modules import patched_forward

NEVER = float("-inf")  # a score of it is no share of a softmax, and comes last
COUNTABLE = "batched_mm"  # transformers' way to compute experts by which the shapes do not depend on what is routed


class _Scores(TorchFunctionMode):
    """Scores that a linear function makes with one weight are NEVER in some columns."""

    def __init__(self, weight: Tensor, columns: Tensor) -> None:
        super().__init__()
        self._weight, self._columns = weight, columns.to(weight.device)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is F.linear and args[1] is self._weight:
            return result.index_fill(-1, self._columns, NEVER)
        return result


@contextmanager
def never_chosen(router: nn.Module, experts: Tensor) -> Iterator[None]:
    """The router hands no token to these experts while the context is open.

    Args:
        router: A module that scores experts by its `weight` [experts, hidden].
        experts: Their numbers, [removed].
    """
    own = router.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with _Scores(router.get_parameter("weight"), experts):
            return own(*args, **kwargs)

    with patched_forward({router: forward}):
        yield


@contextmanager
def countable_experts(network: nn.Module) -> Iterator[None]:
    """transformers' experts compute by COUNTABLE while the context is open; other networks stay as they are."""
    configs = {
        id(config): config
        for module in network.modules()
        if isinstance(config := vars(module).get("config"), object) and hasattr(config, "_experts_implementation")
    }
    before = [(config, config._experts_implementation) for config in configs.values()]
    try:
        for config, own in before:
            if own is not None:
                config._experts_implementation = COUNTABLE
        yield
    finally:
        for config, own in before:
            if own is not None:
                config._experts_implementation = own
