"""Weights that are used by functions, in other ways than their layer's: what reads and writes by them goes with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.structure.edit import masked, shrink
from autoprune.structure.graph import find_structure
from experiments.coverage.command import half_can_go
from experiments.coverage.further import FURTHER
from tests.structure.halves import checked_half

# architecture → its groups as one counts them by hand: the first layer's name and the units
BY_HAND = {
    "tied by transposing": {"enc#2": 24, "bot": 16},  # the first of enc's axes is the network's output
    "tied convolutions": {"c1#2": 16, "c2": 24},
    "experts, einsum": {"inp": 16, "w1": 20},
    "experts, bmm": {"inp": 16, "w1": 20},
    "experts, top k": {"inp": 16, "experts.0.0": 20, "experts.1.0": 20, "experts.2.0": 20, "experts.3.0": 20},
    "experts, top k of one tensor": {"inp": 16, "w1": 20},
    "attention, einsum": {"q": 4, "f": 32},
    "scaled weights": {"w1": 20, "w2": 16},
    "halves of one weight": {"w": 24},
    "grouped transposed convolution": {"a.0": 16, "b.0": 6, "u": 8, "c.0": 16},
    "bilinear": {"a": 16, "b": 12, "bi": 20},
    "pairwise interactions": {"bot.0": 32, "bot.2": 16, "top.0": 32},
    "two towers": {"a.0": 32, "a.2": 16, "b.0": 24},
    "attention of one head": {"i": 16, "q": 8, "v": 20},
    "translator, gru": {"es": 12, "enc": 20, "br": 24, "et": 12},
    "film": {"c.0": 16, "g.0": 12},
    "unfold and fold": {"a": 8, "b": 24, "c": 6},
}


@pytest.mark.parametrize("name", BY_HAND)
def test_groups_are_those_counted_by_hand(name: str) -> None:
    """That every form of them computes the same is held in test_kinds.py."""
    torch.manual_seed(0)
    network, inputs = FURTHER[name].build().eval(), FURTHER[name].inputs()
    structure = find_structure(network, inputs)
    assert {group.name: group.units for group in structure.groups} == BY_HAND[name]
    assert half_can_go(network, structure, inputs)


class Mixes(nn.Module):
    """A weight that is used in part, moved, or with another one; and two plain layers beside it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.a, self.b = how, nn.Linear(6, 16), nn.Linear(16, 3)
        self.plain = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3))
        self.w, self.v = nn.Parameter(torch.randn(16, 16)), nn.Parameter(torch.randn(16, 16))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        match self.how:
            case "rows picked":
                h = F.linear(h, self.w[[3, 0, 1, 2, *range(4, 16)]])
            case "product":
                h = F.linear(h, self.w @ self.v)
            case "sum":
                h = F.linear(h, self.w + self.v)
            case "transposed":
                h = torch.relu(h @ self.w) @ self.w.T
            case "columns moved":
                h = h @ self.w.view(16, 4, 4).transpose(1, 2).flatten(1)
        return self.b(h) + self.plain(x)


# what is done with the weight → the groups beside the plain layers' one
OFFERED = {"rows picked": {"a"}, "product": set(), "sum": set(), "transposed": {"a", "w"}, "columns moved": {"a"}}


@pytest.mark.parametrize("how", OFFERED)
def test_what_cannot_be_followed_costs_that_group_alone_and_what_is_offered_is_exact(how: str) -> None:
    torch.manual_seed(0)
    network, inputs = Mixes(how).eval(), torch.randn(2, 6)
    structure = find_structure(network, inputs)
    assert set(structure.names) == {"plain.0"} | OFFERED[how], structure.unprunable
    rng = np.random.default_rng(0)
    for _ in range(3):
        plan = structure.plan(np.array([rng.choice(group.levels[:-1]) for group in structure.groups]))
        ranking = {group.name: torch.from_numpy(rng.permutation(group.units)) for group in structure.groups}
        with torch.no_grad(), masked(network, structure, plan, ranking):
            expected = network(inputs).clone()
        assert torch.allclose(shrink(network, structure, plan, ranking)(inputs), expected, atol=1e-4)


class Equalised(nn.Module):
    """As StyleGAN's layers: weight and bias are stored large, and multiplied by numbers wherever they are used."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(outputs, inputs)), nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * 0.3, bias=self.bias * 0.01)


def test_a_bias_that_is_multiplied_by_a_number_goes_with_its_weight() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(Equalised(5, 14), nn.LeakyReLU(0.2), Equalised(14, 9), nn.ReLU(), Equalised(9, 2))
    structure = find_structure(network, torch.randn(3, 5))
    assert {group.name: group.units for group in structure.groups} == {"0.weight": 14, "2.weight": 9}


class Contracted(nn.Module):
    """Products of several written as one einsum: a low-rank bilinear form, or an attention's mixing with its output."""

    def __init__(self, equation: str, *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.equation, self.first, self.last = equation, nn.Linear(5, 6), nn.Linear(6, 2)
        self.weights = nn.ParameterList(torch.randn(shape) for shape in shapes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        given = [h, h] if self.equation.startswith("bti,btj") else [h]
        return self.last(torch.einsum(self.equation, [*given, *self.weights.parameters()]))  # type: ignore[no-any-return]


CONTRACTED: dict[str, tuple[list[tuple[int, ...]], dict[str, int]]] = {
    "bti,btj,ir,jr,ro->bto": ([(6, 8), (6, 8), (8, 6)], {"first": 6, "weights.0": 8, "weights.2": 6}),
    "btd,dhk,hke->bte": ([(6, 3, 4), (3, 4, 6)], {"first": 6, "weights.0": 3, "weights.1": 6}),
    "bti,ij,jk,ko->bto": ([(6, 7), (7, 5), (5, 6)], {"first": 6, "weights.0": 7, "weights.1": 5, "weights.2": 6}),
}


@pytest.mark.parametrize("equation", CONTRACTED)
def test_products_of_several_are_products_of_two_at_a_time(equation: str) -> None:
    torch.manual_seed(0)
    shapes, by_hand = CONTRACTED[equation]
    network, x = Contracted(equation, *shapes).eval(), torch.randn(2, 3, 5)
    structure = find_structure(network, x)
    assert {group.name: group.units for group in structure.groups} == by_hand
    checked_half(network, structure, x)


class NeverCalled(nn.Module):
    """Layers of which functions read the weights: as they are, times a mask, in a sum; and one that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 3)
        self.masked, self.summed, self.idle = nn.Linear(5, 8), nn.Linear(5, 3), nn.Linear(4, 4)
        self.register_buffer("mask", torch.rand(8, 5).round() + 0.5)

    def forward(self, x: Tensor) -> Any:
        h = (self.a(x) + F.linear(x, self.masked.weight * self.get_buffer("mask"), self.masked.bias)).relu()
        other = F.linear(x, self.summed.weight + 1, self.summed.bias)
        return self.c(F.linear(h, self.b.weight, self.b.bias).relu()) + other


def test_layers_that_are_never_called_are_layers_all_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, x = NeverCalled().eval(), torch.randn(2, 5)
    structure = find_structure(network, x)
    assert {group.name: group.units for group in structure.groups} == {"a": 8, "b": 6}
    assert structure.unprunable["idle"].startswith("the example input does not run it")
    members = {(member.layer, member.axis) for member in structure.groups[0].members}
    assert members == {("a", "out"), ("masked", "out"), ("", "mask/0"), ("b", "in")}
    assert structure.unprunable["summed"].startswith("it is never called")
    checked_half(network, structure, x, folder=tmp_path)
