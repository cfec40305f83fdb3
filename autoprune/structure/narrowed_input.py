"""Modules that take their heads' width from their input's: they are shown a narrower input, their layers read it whole.

Many attentions write `B, N, C = x.shape` and reshape to `C // self.num_heads`. Without some heads, C has to be what is
left of the heads' width, while the layers that read x still need all of it.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from autoprune.structure.instance_class import InstanceClass, class_with, class_without
from autoprune.structure.skipped_modules import patched_forward

WITHHELD = "withheld_inputs"  # the attribute: how many of its input's entries a module is not shown


class NarrowedInput(InstanceClass):
    """What a module inherits from, before its own class, while some of its input's entries are withheld from it."""

    withheld_inputs: int

    def forward(self: Any, *args: Any, **named: Any) -> Any:
        """What the module returns for its first input's leading entries; layers of it that are called with these get
        all of them.

        Args:
            args: The module's arguments; the first one, or the first by name, is narrowed.
            named: Its arguments by name.
        """
        key = 0 if args else next(iter(named))
        values = dict(enumerate(args)) | named
        whole = values[key]
        dim = 1 if whole.ndim == 4 else -1
        values[key] = part = whole.narrow(dim, 0, whole.shape[dim] - self.withheld_inputs)
        positional, others = [values[index] for index in range(len(args))], {name: values[name] for name in named}
        readers = {module: _reading(module.forward, part, whole) for module in self.modules() if module is not self}
        with patched_forward(readers):
            return super().forward(*positional, **others)  # type: ignore[misc]


def withhold(module: nn.Module, entries: int) -> None:
    """So many entries of its input, more or fewer than before, are not shown to the module any more.

    Args:
        module: Not one of torch's own; its class is another one while anything is withheld.
        entries: Withheld beside those that are; fewer than 0 are shown again.
    """
    withheld = getattr(module, WITHHELD, 0) + entries
    kind = class_without(NarrowedInput, type(module))
    module.__dict__.pop(WITHHELD, None)
    if withheld:
        module.__dict__[WITHHELD] = withheld
    module.__class__ = class_with(NarrowedInput, kind) if withheld else kind


def withheld_of(network: nn.Module) -> dict[str, int]:
    """Module → how many entries of its input are withheld from it, for those from which any are."""
    return {
        name: module.withheld_inputs for name, module in network.named_modules() if isinstance(module, NarrowedInput)
    }


def _reading(forward: Callable[..., Any], part: Tensor, whole: Tensor) -> Callable[..., Any]:
    def read(*args: Any, **named: Any) -> Any:
        return forward(*(whole if a is part else a for a in args), **{
            name: whole if value is part else value for name, value in named.items()
        })  # fmt: skip

    return read
