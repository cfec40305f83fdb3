"""Which blocks of keys a network's attentions see, as JSON and back."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from torch import nn

from autoprune.structure.block_sparse import install_pattern, patterns_of
from autoprune.structure.groups import Pattern

KINDS = {of.name: {"module": str, "causal": bool}.get(of.name, int) for of in fields(Pattern)} | {"kept": int}


def described(network: nn.Module) -> list[dict[str, Any]]:
    """Returns an entry for every pattern that is installed: its fields, and how many blocks of keys are kept."""
    return [asdict(pattern) | {"kept": kept} for pattern, kept in patterns_of(network)]


def narrow(network: nn.Module, entries: Sequence[Any]) -> None:
    """The patterns are installed in the network.

    Args:
        network: Is changed in place.
        entries: What `described` returned, or what stood in a file for it.

    Raises:
        ValueError: An entry is no pattern of the network.
    """
    modules = dict(network.named_modules())
    for entry in entries:
        if not isinstance(entry, dict) or {key: type(value) for key, value in entry.items()} != KINDS:
            named = ", ".join(f"{key} ({kind.__name__})" for key, kind in KINDS.items())
            raise ValueError(f"a pattern of key blocks is {named}; got {entry!r}")
        if entry["module"] not in modules or entry["seed"] < 0:
            raise ValueError(f"its pattern {entry!r} needs a module that is there, and a seed of at least 0")
        pattern = Pattern(**{key: value for key, value in entry.items() if key != "kept"})
        install_pattern(modules[pattern.module], pattern, entry["kept"])
