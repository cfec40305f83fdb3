"""Dense networks from a name and JSON arguments, as saved networks carry them."""

import importlib
import inspect
from pathlib import Path

from torch import nn


def build_dense(architecture: object, *, source: Path) -> nn.Module:
    """The dense network that a saved network's `architecture` {builder, arguments} describes.

    The file `source` may come from anywhere, so it can only call functions of autoprune's that return an `nn.Module`.
    """
    ask = "pass the dense network itself, load(..., model=YOUR_DENSE_MODULE)"
    if architecture is None:
        raise ValueError(f"{source} does not say how to build its network; {ask}")
    if not isinstance(architecture, dict) or architecture.keys() != {"builder", "arguments"}:
        raise ValueError(
            f"{source}: the architecture must be a builder and its arguments, got {architecture!r}; or {ask}"
        )
    name, arguments = str(architecture["builder"]), architecture["arguments"]
    if not name.startswith("autoprune."):
        raise ValueError(
            f"{source} names the builder {name!r}; only builders in the autoprune package are called, so {ask}"
        )
    module, _, function = name.rpartition(".")
    try:
        builder = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{source} names the builder {name!r}, which this autoprune lacks; use its version, or {ask}"
        ) from error
    if not _builds_a_network(builder, module):
        raise ValueError(f"{source} names the builder {name!r}, which is no function that returns an nn.Module; {ask}")
    try:
        inspect.signature(builder).bind(**arguments)
        return builder(**arguments)  # type: ignore[no-any-return]
    except Exception as error:  # whatever an altered file's arguments lead to
        raise ValueError(f"{source}: {name} cannot be called with {arguments!r}: {error}") from error


def _builds_a_network(builder: object, module: str) -> bool:
    if not inspect.isfunction(builder) or builder.__module__ != module:
        return False
    returns = inspect.signature(builder).return_annotation
    return inspect.isclass(returns) and issubclass(returns, nn.Module)
