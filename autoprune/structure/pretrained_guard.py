"""A pruned network that came from a hub writes itself as a configuration describes it, or not at all."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from autoprune.structure.block_sparse import patterns_of
from autoprune.structure.families import model_type
from autoprune.structure.instance_class import InstanceClass, class_with
from autoprune.structure.stock_network import stock_network


def tensor_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every parameter and buffer, and under "" how many patterns of key blocks are installed."""
    shapes = {name: tuple(value.shape) for name, value in network.state_dict(keep_vars=True).items()}
    return shapes | {"": (len(patterns_of(network)),)}


def guard_save_pretrained(network: nn.Module, *, dense: Mapping[str, tuple[int, ...]]) -> None:
    """`network.save_pretrained` writes from now on what plain `from_pretrained` loads to the same outputs, or raises.

    It would write the dense configuration beside the smaller weights, and modules that were removed would be loaded
    with random weights. That concerns the network and all parts of it that can save themselves. Where shapes and
    modules are the dense network's, as after pruning single weights, saving stays as it is, but for GPT-2, whose
    layers hold their weights transposed here.

    Args:
        network: A copy of the dense network from which units were removed; it is changed in place.
        dense: `tensor_shapes` of the dense network, whose configuration it carries.
    """
    if tensor_shapes(network) == dense and model_type(network) != "gpt2":
        return
    for part in _savable(network):
        part.__class__ = class_with(PrunedPretrained, type(part))


class PrunedPretrained(InstanceClass):
    """What a pruned network inherits from before its own class."""

    def save_pretrained(self, folder: Any, **options: Any) -> None:
        """Writes the network with a configuration that describes it; plain transformers loads it to the same outputs.

        Args:
            folder: Where to.
            options: As of transformers' own `save_pretrained`.

        Raises:
            NotImplementedError: No configuration describes it; the sentence says why, and how it is saved otherwise.
        """
        self._stock().save_pretrained(folder, **options)

    def push_to_hub(self, repository: str, **options: Any) -> Any:
        """Uploads what `save_pretrained` writes. Raises NotImplementedError as that does."""
        return self._stock().push_to_hub(repository, **options)

    def _stock(self: Any) -> Any:
        try:
            return stock_network(self)
        except ValueError as error:
            raise NotImplementedError(
                f"{error}. Its run has saved it too: autoprune.load(RUN_FOLDER) gives it back, with "
                "model=YOUR_DENSE_MODEL where it is a network of yours"
            ) from error


def _savable(network: nn.Module) -> Iterator[nn.Module]:
    for part in network.modules():
        if callable(getattr(type(part), "save_pretrained", None)) and not isinstance(part, PrunedPretrained):
            yield part
