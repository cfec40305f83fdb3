"""Functions that networks hold: a copy's compute with the copy, and what goes on with the network itself is refused."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoprune.structure.graph import find_structure
from autoprune.task.copies import copied
from autoprune.task.task import Roles, Task
from tests.structure.halves import checked_half


def pile() -> Roles:
    return Roles.split(torch.randn(40, 3), torch.arange(40) % 4)


class Hooked(nn.Module):
    """Reads what a hook kept of an inner layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.side, self.head = (
            nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 6)),
            nn.Linear(8, 6),
            nn.Linear(6, 4),
        )
        self.seen: dict[str, Tensor] = {}
        self.body[1].register_forward_hook(lambda module, inputs, output: self.seen.__setitem__("inner", output))

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.relu(self.body(x)) + self.side(self.seen["inner"]))


def patched(forward: Callable[[nn.Module], Callable[[Tensor], Tensor]]) -> nn.Module:
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
    network.forward = forward(network)  # type: ignore[method-assign]
    return network


def in_order(network: nn.Module, x: Tensor) -> Tensor:
    for layer in network.children():
        x = layer(x)
    return x


def by_wrapper(network: nn.Module) -> Callable[[Tensor], Tensor]:
    inner = type(network).forward

    def logged(function: Callable[..., Any]) -> Callable[[Tensor], Any]:
        return lambda x: function(network, x)

    return logged(inner)


def by_default(network: nn.Module) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor, layers: tuple[nn.Module, ...] = tuple(network.children())) -> Tensor:
        for layer in layers:
            x = layer(x)
        return x

    return forward


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "hook": Hooked,
    "lambda": lambda: patched(lambda network: lambda x: in_order(network, x)),
    "default argument": lambda: patched(by_default),
    "decorated": lambda: patched(by_wrapper),
    "partial of a lambda": lambda: patched(lambda network: functools.partial(lambda x: in_order(network, x))),
}  # fmt: skip


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_a_copys_functions_hold_the_copy(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    network, x = build().eval(), torch.randn(2, 3)
    task = Task(network, x[:1], pile())
    before = network(x)  # which leaves an activation on the first of them
    again = copied(copied(task.model))  # the copy of a copy as well
    for parameter in again.parameters():
        parameter.data.zero_()
    assert torch.equal(again(x), torch.zeros(2, 4))
    assert torch.equal(network(x), before)
    checked_half(network, find_structure(network, x[:1]), x)


def test_what_goes_on_with_the_network_itself_is_refused() -> None:
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
    with pytest.raises(ValueError, match=r"computes with the network's own 0\.weight.* task\.forward must call"):
        Task(network, torch.zeros(1, 3), pile(), forward=lambda given, x: network(x))

    class Outer(nn.Module):
        inner = network

        def forward(self, x: Tensor) -> Any:
            return network[2](self.first(x))  # type: ignore[operator]

    outer = Outer()
    outer.first, outer.second = network[0], network[2]
    with pytest.raises(ValueError, match=r"computes with the network's own second\.weight"):
        Task(outer, torch.zeros(1, 3), pile())
