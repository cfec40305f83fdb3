"""A pruned network that came from a hub does not write itself in the dense one's format."""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from torch import nn

from autoprune.structure.block_sparse import patterns_of


def tensor_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter and buffer, and under "" how many patterns of key blocks are installed."""
    shapes = {name: tuple(value.shape) for name, value in network.state_dict(keep_vars=True).items()}
    return shapes | {"": (len(patterns_of(network)),)}


def refuse_save_pretrained(network: nn.Module, *, dense: Mapping[str, tuple[int, ...]]) -> None:
    """`network.save_pretrained` raises from now on if a plain `from_pretrained` would not bring the network back.

    It would write the dense configuration beside the smaller weights, and modules that were removed would be loaded
    with random weights. That concerns the network and all parts of it that can save themselves. Where shapes and
    modules are the dense network's, as after pruning single weights, saving stays as it is.

    Args:
        network: A copy of the dense network from which units were removed; it is changed in place.
        dense: `tensor_shapes` of the dense network, whose configuration it carries.
    """
    if tensor_shapes(network) == dense:
        return
    for part in _savable(network):
        # A class of its own, as torch's parametrizations and FSDP make them: no method is replaced on an instance.
        part.__class__ = _pruned(type(part))


class PrunedPretrained:
    """What a pruned network inherits from before its own class."""

    def save_pretrained(self, *_: Any, **__: Any) -> NoReturn:
        """Raises NotImplementedError, which says how a pruned network is saved and loaded."""
        raise NotImplementedError(
            f"this {type(self).__name__} was pruned by autoprune, and save_pretrained would write the dense network's "
            "configuration, which does not fit its weights: removed modules would come back with random ones. Its run "
            "has saved it: autoprune.load(RUN_FOLDER) gives it back, with model=YOUR_DENSE_MODEL where it is a network "
            "of yours. autoprune.export.network.save_network saves it anywhere, and load_network loads that"
        )

    push_to_hub = save_pretrained

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        return _restored, (type(self).__mro__[2],), self.__dict__.copy()


def _restored(kind: type[nn.Module]) -> nn.Module:
    pruned = _pruned(kind)
    restored: nn.Module = pruned.__new__(pruned)
    return restored


def _pruned(kind: Any) -> Any:
    """The subclass of a class of networks, always the same."""
    if kind not in _CLASSES:
        attributes = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        _CLASSES[kind] = type(kind.__name__, (PrunedPretrained, kind), attributes)
    return _CLASSES[kind]


_CLASSES: dict[Any, Any] = {}


def _savable(network: nn.Module) -> Iterator[nn.Module]:
    for part in network.modules():
        if callable(getattr(type(part), "save_pretrained", None)) and not isinstance(part, PrunedPretrained):
            yield part
