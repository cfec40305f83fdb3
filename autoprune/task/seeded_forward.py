"""Networks that draw random numbers in eval mode (a VAE's samples): judged, they draw the same ones every time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from autoprune.task.samples import Samples, largest_difference, leaves, named_outputs, rows

SAME = 1e-3  # outputs that differ by less, relative to their size, are equal

Forward = Callable[[nn.Module, Any], Any]  # (network, inputs) → outputs


@dataclass(frozen=True, slots=True)
class SeededForward:
    """Calls a network in eval mode from the same state of the global generator; in training it draws what it likes."""

    forward: Forward
    """(network, inputs) → outputs."""

    def __call__(self, network: nn.Module, inputs: Samples) -> Samples:
        if network.training:
            return self.forward(network, inputs)
        devices = {tensor.device for tensor in leaves(inputs) if tensor.device.type == "cuda"}
        with torch.random.fork_rng(devices=list(devices)):
            torch.manual_seed(0)
            return self.forward(network, inputs)


def draws_random_numbers(network: nn.Module, inputs: Samples, forward: Forward) -> bool:
    """Whether the network returns something else for the same two samples when it is asked again.

    Args:
        network: The network.
        inputs: What the network reads [N, ...].
        forward: (network, inputs) → outputs: how the network is called.
    """
    few = rows(inputs, slice(0, 2))
    with torch.no_grad():
        first, second = forward(network, few), forward(network, few)
    size = max(float(tensor.abs().max()) for tensor in named_outputs(first).values())
    return largest_difference(first, second) > SAME * size
