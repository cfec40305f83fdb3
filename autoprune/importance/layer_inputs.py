"""What layers read: their input tensors, batch by batch. Layers that read the very same tensors need one ear."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.structure.edit import evaluating
from autoprune.task.samples import Samples, cut, leaves, release_between, samples_within
from autoprune.task.task import Forward, Role

TOKENS = 1024  # in one pass: their activations and the logits of a large vocabulary fit in memory beside the network

OnInput = Callable[[str, nn.Module, Tensor], None]  # of a layer's name, the layer and the tensor that it is given


@torch.no_grad()
def read_inputs(
    model: nn.Module, names: Sequence[str], role: Role, *, forward: Forward, batch_size: int, on_input: OnInput
) -> None:
    """Calls `on_input` with every tensor that the named layers read, over all samples of the role, in eval mode.

    Args:
        model: The dense network, in eval mode.
        names: Layers, by qualified name.
        role: The samples that are read.
        forward: (network, inputs) → outputs: how the network is called.
        batch_size: Samples in one forward pass, at least 1.
        on_input: Called with (layer's name, layer, tensor).
    """
    with evaluating(model), _listening({name: model.get_submodule(name) for name in names}, on_input):
        for inputs, _ in batches(role, batch_size):
            forward(model, inputs)
            release_between(inputs)


@torch.no_grad()
def first_readers(model: nn.Module, names: Sequence[str], role: Role, *, forward: Forward) -> dict[str, str]:
    """Layer → the first of the layers that read the very same tensors as it, which most often is the layer itself.

    Only linear layers are said to share (a query, key and value projection do). One sample is run to find out.

    Args:
        model: The dense network, in eval mode.
        names: Layers, by qualified name.
        role: The samples that are read.
        forward: (network, inputs) → outputs: how the network is called.
    """
    heard: dict[str, list[tuple[Tensor, int]]] = {}  # holds the tensors, so that no two can have one address

    def note(name: str, layer: nn.Module, inputs: Tensor) -> None:
        if isinstance(layer, nn.Linear):
            heard.setdefault(name, []).append((inputs, inputs._version))  # which an edit in place raises

    read_inputs(model, names, role[:1], forward=forward, batch_size=1, on_input=note)
    first: dict[object, str] = {}
    return {
        name: first.setdefault(tuple((id(x), version) for x, version in heard[name]), name) if name in heard else name
        for name in names
    }


def batches(role: Role, batch_size: int) -> Iterator[tuple[Samples, Samples]]:
    """(inputs, targets) of `batch_size` samples; of windows of tokens [N, T], of at most TOKENS tokens too.

    Of large samples, such as images of 224², there are fewer (`samples_within`). Targets are None where the role has
    none.

    Args:
        role: The samples that are read.
        batch_size: Samples in one forward pass, at least 1.
    """
    first = leaves(role.inputs)[0]
    if first.ndim == 2 and not first.is_floating_point():
        batch_size = min(batch_size, max(1, TOKENS // first.shape[1]))
    batch_size = samples_within(role.inputs, batch_size)
    inputs = cut(role.inputs, batch_size)
    return zip(inputs, [None] * len(inputs) if role.targets is None else cut(role.targets, batch_size), strict=True)


@contextmanager
def _listening(layers: Mapping[str, nn.Module], on_input: OnInput) -> Iterator[None]:
    def heard(name: str, layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        on_input(name, layer, arguments[0])

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_pre_hook(partial(heard, name)))
        yield
