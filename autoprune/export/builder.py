"""Dense networks from a name and JSON arguments, as saved networks carry them."""

import importlib
import inspect
from pathlib import Path

from torch import nn

# A saved network may come from anywhere, so only these are called: they build a network of numbers and short texts,
# with random weights, and read no file, run no other code and ask no server.
BUILDERS = frozenset(
    f"autoprune.task.{name}"
    for name in (
        "huggingface.causal_lm",
        "huggingface.encoder",
        "lenets.lenet_300_100_net",
        "lenets.lenet_5_net",
        "networks.digits_net",
        "networks.mobilenet_v1",
        "networks.plain20",
        "networks.resnet20",
        "tabular.uneven_plain",
        "tabular.uneven_residual",
        "variants.variant_network",
    )
)


def build_dense(architecture: object, *, source: Path) -> nn.Module:
    """Returns the dense network that a saved network's architecture describes, with random weights.

    Args:
        architecture: {"builder": one of BUILDERS, "arguments": {name: JSON value}}.
        source: The file it was read from, which may come from anywhere; errors name it.

    Raises:
        ValueError: The architecture is something else, or its arguments build nothing.
    """
    ask = "pass the dense network itself, load(..., model=YOUR_DENSE_MODULE)"
    if architecture is None:
        raise ValueError(f"{source} does not say how to build its network; {ask}")
    if not isinstance(architecture, dict) or architecture.keys() != {"builder", "arguments"}:
        raise ValueError(
            f"{source}: the architecture must be a builder and its arguments, got {architecture!r:.200}; or {ask}"
        )
    name, arguments = architecture["builder"], architecture["arguments"]
    if not isinstance(name, str) or name not in BUILDERS:
        raise ValueError(f"{source} names the builder {name!r:.200}; only autoprune's own are called, so {ask}")
    module, _, function = name.rpartition(".")
    try:
        builder = getattr(importlib.import_module(module), function)
        inspect.signature(builder).bind(**arguments)
        network: nn.Module = builder(**arguments)
    except Exception as error:  # whatever an altered file's arguments lead to
        raise ValueError(f"{source}: {name} cannot be called with {arguments!r:.200}: {error}") from error
    return network
