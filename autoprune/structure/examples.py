"""Example inputs: how a network is called on them, all that it returns, and smaller and other inputs of the kind."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.task.samples import mapped
from autoprune.task.task import Forward, plain_forward

SMALL = {4: 64, 5: 32, 3: 4096}  # dimensions of a tensor → the largest side that structure needs
STEP = 32  # sides stay multiples of it, as networks halve them five times


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """Inputs of a network, and how it is called on them."""

    inputs: Any
    """A batch."""
    forward: Forward = plain_forward
    """(network, inputs) → outputs."""

    def outputs(self, network: nn.Module) -> dict[str, Tensor]:
        """All tensors of numbers that the network returns, and those that `forward` makes of them, by name."""
        own: dict[str, Tensor] = {}

        def note(_: nn.Module, __: Any, returned: Any) -> None:
            own.update({f"{name} of call {len(own)}": tensor for name, tensor in named_tensors(returned)})

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)  # networks that draw random numbers draw the same ones
            with network.register_forward_hook(note):
                returned = self.forward(network, self.inputs)
        judged = dict(named_tensors(returned))
        if not judged:
            raise TypeError(f"the model returns {type(returned).__name__}; a tensor, or a container of one, is needed")
        seen = {id(tensor) for tensor in judged.values()}
        return judged | {name: tensor for name, tensor in own.items() if id(tensor) not in seen}

    @property
    def shapes(self) -> Any:
        """Of all tensors, for messages."""
        shapes = [tuple(tensor.shape) for tensor in tensors(self.inputs)]
        return shapes[0] if len(shapes) == 1 else shapes


def tensors(values: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, mappings and dataclasses."""
    return (tensor for _, tensor in _named(values, ""))


def named_tensors(values: Any) -> Iterator[tuple[str, Tensor]]:
    """All tensors of numbers, with keys and positions joined by dots as names; complex ones as pairs of real ones."""
    for name, tensor in _named(values, ""):
        if tensor.is_floating_point() or tensor.is_complex():
            yield name, torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _named(values: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(values, Tensor):
        yield prefix.removesuffix("."), values
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _named(value, f"{prefix}{key}.")
    elif isinstance(values, tuple | list):
        for index, value in enumerate(values):
            yield from _named(value, f"{prefix}{index}.")
    elif dataclasses.is_dataclass(values) and not isinstance(values, type):
        for field in dataclasses.fields(values):
            yield from _named(getattr(values, field.name), f"{prefix}{field.name}.")


def one_sample(example: Example) -> Example:
    """The first sample of inputs that all hold as many."""
    lengths = {len(tensor) if tensor.ndim else 0 for tensor in tensors(example.inputs)}
    if len(lengths) != 1 or lengths <= {0, 1}:
        return example
    return replace(example, inputs=mapped(example.inputs, lambda tensor: tensor[:1]))


def smaller(example: Example) -> Example:
    """Images and sounds with shorter sides; couplings do not depend on how many positions there are."""
    return replace(example, inputs=mapped(example.inputs, _shrunk))


def _shrunk(tensor: Tensor) -> Tensor:
    most = SMALL.get(tensor.ndim)
    if most is None or not tensor.is_floating_point() or tensor.shape[1] > tensor.shape[-1]:
        return tensor
    sides = [min(side, most) if side > most and side % STEP == 0 else side for side in tensor.shape[2:]]
    if sides == list(tensor.shape[2:]):
        return tensor
    return F.interpolate(tensor, size=sides, mode="nearest")


def varied(example: Example) -> Example:
    """Other inputs of the same shapes and kinds: noise of the same mean and spread, the same tokens shuffled."""
    generator = torch.Generator().manual_seed(1)

    def other(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator).to(tensor)
            spread = tensor.std() if tensor.numel() > 1 else torch.zeros(())
            return noise * spread + tensor.mean() if bool(spread > 0) else noise
        if tensor.dtype == torch.bool or tensor.numel() < 2:
            return tensor
        return tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].view_as(tensor)

    return replace(example, inputs=mapped(example.inputs, other))


def in_single_precision(example: Example) -> Example:
    return replace(example, inputs=mapped(example.inputs, lambda t: t.float() if t.is_floating_point() else t))


def with_gradients(example: Example) -> tuple[Example, list[Tensor]]:
    """The same inputs, those of floating-point numbers as leaves of a graph of derivatives; and these leaves."""
    leaves: list[Tensor] = []

    def leaf(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        leaves.append(tensor.detach().clone().requires_grad_())
        return leaves[-1].clone()  # which may be written into

    return replace(example, inputs=mapped(example.inputs, leaf)), leaves


def runs(example: Example, network: nn.Module) -> bool:
    """Whether the network runs on the inputs.

    Args:
        example: The inputs, and how they are given to a network.
        network: One that may refuse them; whatever it raises counts.
    """
    try:
        with torch.no_grad():
            example.outputs(network)
    except Exception:  # whatever a user's forward pass checks
        return False
    return True


def runs_of(examples: Sequence[Example], network: nn.Module) -> list[Callable[[nn.Module], Mapping[str, Tensor]]]:
    """How to run a network on each example, and on another one like it where it runs on that.

    Args:
        examples: On which the network runs.
        network: The dense network, which is run once on each example's variant.

    Returns:
        Functions of a network that give its outputs by name.
    """
    others = [other for other in map(varied, examples) if runs(other, network)]
    return [example.outputs for example in (*examples, *others)]
