"""BatchNorm folded into the layer before it: one pass over memory less for each, where statistics stay as they are."""

from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from autoprune.structure.layer_types import CONVOLUTIONS
from autoprune.task.samples import Samples, largest_difference, leaves, mapped
from autoprune.task.task import Forward, outputs_of, plain_forward

TOLERANCE = 1e-3  # largest change of the outputs, relative to their own size: rounding in float32 is far below


def fold_batch_norms(
    network: nn.Module, example_input: Samples, *, forward: Forward = plain_forward
) -> tuple[str, ...]:
    """Folds every BatchNorm that directly follows a convolution or linear layer; the names of those that are gone.

    The network's tensors are plain attributes, in float32. Where folding changes its outputs (somebody else reads what
    stands between the two), nothing is folded.

    Args:
        network: The network.
        example_input: A batch [1, ...] that the network runs on.
        forward: (network, inputs) → outputs: how the network is called.
    """
    if not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.modules()):
        return ()
    generator = torch.Generator().manual_seed(0)

    def drawn(example: Tensor) -> Tensor:  # which may be all zeros, and so show nothing
        return torch.rand(example.shape, generator=generator).to(example) if example.is_floating_point() else example

    probe = mapped(example_input, drawn)
    before = outputs_of(network, probe, forward)
    layers = dict(network.named_modules())
    pairs = {
        first: second
        for first, second in followers(network, example_input, forward=forward).items()
        if layers[second].running_mean is not None  # else it always normalises by its batch
    }
    undo = []
    for first, second in pairs.items():
        layer, norm = layers[first], layers[second]
        undo.append((layer, layer.weight, layer.bias, second, norm))
        _fold(layer, norm)
        _replace(network, second, nn.Identity())
    after = outputs_of(network, probe, forward)
    if largest_difference(after, before) <= TOLERANCE * max(float(tensor.abs().max()) for tensor in leaves(before)):
        return tuple(pairs.values())
    for layer, weight, bias, name, norm in undo:
        layer.__dict__["weight"], layer.__dict__["bias"] = weight, bias
        _replace(network, name, norm)
    return ()


def followers(network: nn.Module, example_input: Samples, *, forward: Forward = plain_forward) -> dict[str, str]:
    """Convolution or linear layer → the BatchNorm that reads its very output, for layers that run once.

    Args:
        network: The network.
        example_input: A batch [1, ...] that the network runs on.
        forward: (network, inputs) → outputs: how the network is called.
    """
    written: dict[int, tuple[str, int]] = {}  # and how often somebody had written into it
    pairs: dict[str, str] = {}
    runs: dict[str, int] = {}
    alive: list[Tensor] = []  # an id is a tensor's own only as long as the tensor lives

    def note(name: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        runs[name] = runs.get(name, 0) + 1
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            alive.append(output)
            written[id(output)] = name, output._version
        elif inputs and id(inputs[0]) in written:
            first, version = written[id(inputs[0])]
            if inputs[0]._version == version:  # else something in place stands between the two, such as a ReLU
                pairs[first] = name

    with ExitStack() as hooks, torch.no_grad():
        for name, layer in network.named_modules():
            if isinstance(layer, (*CONVOLUTIONS, nn.Linear, nn.modules.batchnorm._BatchNorm)):
                hooks.enter_context(layer.register_forward_hook(partial(note, name)))
        forward(network, example_input)
    return {first: second for first, second in pairs.items() if runs[first] == runs[second] == 1}


def _fold(layer: nn.Module, norm: nn.modules.batchnorm._BatchNorm) -> None:
    weight = layer.__dict__["weight"]
    mean, variance = norm.__dict__["running_mean"], norm.__dict__["running_var"]
    scale = torch.rsqrt(variance + norm.eps)
    if norm.__dict__["weight"] is not None:
        scale = scale * norm.__dict__["weight"]
    bias = layer.__dict__["bias"]
    shift = -mean if bias is None else bias.float() - mean
    shift = shift * scale
    if norm.__dict__["bias"] is not None:
        shift = shift + norm.__dict__["bias"]
    scaled = weight.float() * scale.view(-1, *[1] * (weight.ndim - 1))
    layer.__dict__["weight"], layer.__dict__["bias"] = scaled.to(weight.dtype), shift.to(weight.dtype)


def _replace(network: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, layer)
