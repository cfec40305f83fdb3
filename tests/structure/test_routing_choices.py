"""Experts that an example leaves idle, or hands nothing to, are pruned all the same, and costs follow one routing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.cost.observed import NetworkCosts
from autoprune.structure.edit import masked, shrink
from autoprune.structure.graph import find_structure
from autoprune.structure.routing_choices import RoutingChoices, SameRouting

IDLE = 1
STREAM, HIDDEN, EXPERTS = 6, 10, 3


class Mixture(nn.Module):
    """Top-1 experts, one of which is never the best; `asks`: it is called only where rows are routed to it."""

    def __init__(self, *, asks: bool) -> None:
        super().__init__()
        self.asks = asks
        self.into, self.out = nn.Linear(5, STREAM), nn.Linear(STREAM, 2)
        self.gate = nn.Linear(STREAM, EXPERTS)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(STREAM, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, STREAM)) for _ in range(EXPERTS)
        )
        self.gate.bias.data[IDLE] = -100.0

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.into(x)
        weight, chosen = self.gate(hidden).softmax(-1).topk(1, dim=-1)
        total = hidden
        for index, expert in enumerate(self.experts):
            rows, column = torch.where(chosen == index)
            if len(rows) or not self.asks:
                total = total.index_add(0, rows, expert(hidden[rows]) * weight[rows, column, None])
        return self.out(total)


@pytest.mark.parametrize("asks", [True, False])
def test_experts_that_an_example_leaves_idle_are_groups_that_other_inputs_may_use(asks: bool) -> None:
    torch.manual_seed(0)
    network, x = Mixture(asks=asks).eval(), torch.randn(9, 5)
    structure = find_structure(network, x)
    assert set(structure.names) == {"into", *(f"experts.{index}.0" for index in range(EXPERTS))}
    ranking = {group.name: torch.arange(group.units).flip(0) for group in structure.groups}
    plan = structure.plan(structure.units - 3)
    small = shrink(network, structure, plan, ranking)
    for gate in (network.gate, small.get_submodule("gate")):
        gate.get_parameter("bias").data[IDLE] = 100.0  # now all rows are routed to it
    with torch.no_grad(), masked(network, structure, plan, ranking):
        expected = network(x)
    assert torch.allclose(small(x), expected, atol=1e-5)


class Switch(nn.Module):
    """A branch that no choice of experts leads to."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.usual, self.rare, self.out = (
            nn.Linear(3, 8), nn.Linear(8, 9), nn.Linear(8, 9), nn.Linear(9, 2),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.into(x)
        return self.out(self.rare(hidden) if x.mean() > 100 else self.usual(hidden))


def test_branches_that_no_routing_reaches_need_an_example() -> None:
    with pytest.raises(ValueError, match=r"nothing in this network can be pruned.*give an example that runs it"):
        find_structure(Switch().eval(), torch.rand(4, 3))


def test_costs_are_those_of_the_dense_network_s_routing() -> None:
    torch.manual_seed(1)
    network, x = Mixture(asks=True).eval(), torch.randn(9, 5)
    structure = find_structure(network, x)
    costs = NetworkCosts(network, structure, x)
    with torch.no_grad():
        expert = int(network.gate(network.into(x[:1])).argmax())
    idle = [f"experts.{other}.{part}" for other in range(EXPERTS) for part in (0, 2) if other != expert]
    (sentence,) = costs.uncounted
    assert sentence.endswith("not counted: the first sample of the example input does not run them")
    assert all(name in sentence for name in idle)
    rng = np.random.default_rng(0)
    for kept in [structure.units, structure.floor, *(rng.integers(1, structure.units + 1) for _ in range(5))]:
        stream, *hidden = kept.tolist()
        expected = 5 * stream + stream * EXPERTS + 2 * stream * hidden[expert] + 2 * stream
        assert costs.macs()(kept[None])[0] == expected


CALLS: list[Callable[[Tensor], Any]] = [
    lambda x: torch.topk(x, 2), lambda x: x.topk(2, dim=0), lambda x: x.topk(k=1, dim=1), lambda x: torch.max(x, 1),
    lambda x: x.max(dim=0, keepdim=True), lambda x: x.argmax(-1), lambda x: torch.argmax(x, dim=0, keepdim=True),
    lambda x: x.max(), lambda x: torch.argmax(x),
    lambda x: x[0].argmax(), lambda x: torch.max(x, x), lambda x: x.amax(1), lambda x: x.sum(1),
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_a_routed_call_returns_what_it_returns_without_where_nothing_else_is_chosen(
    call: Callable[[Tensor], Any],
) -> None:
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(2))
    expected = call(x)
    with RoutingChoices(lambda indices, dim, size: indices):
        routed = call(x)
    assert type(routed) is type(expected)
    for own, other in zip(*((r,) if isinstance(r, Tensor) else r for r in (routed, expected)), strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize(("call", "dim"), list(zip(CALLS[:5], (-1, 0, 1, 1, 0), strict=True)))
def test_values_are_those_of_the_entries_that_are_chosen_instead(call: Callable[[Tensor], Any], dim: int) -> None:
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(2))
    _, best = call(x)
    with RoutingChoices(lambda indices, _, size: (indices + 1) % size):
        values, indices = call(x)
    assert torch.equal(indices, (best + 1) % x.shape[dim])
    at = indices if indices.ndim == 2 else indices.unsqueeze(dim)
    assert torch.equal(values, x.gather(dim, at).view_as(values))


def test_a_second_pass_chooses_as_the_first_where_it_has_as_many_to_choose_from() -> None:
    routes = SameRouting()
    with routes.once_more():
        first = torch.tensor([[1.0, 3.0, 2.0]]).argmax(-1)
    with routes.once_more():
        assert torch.equal(torch.tensor([[9.0, 3.0, 2.0]]).argmax(-1), first)
    with routes.once_more():
        assert torch.tensor([[9.0]]).argmax(-1).tolist() == [0]  # there is no second entry
