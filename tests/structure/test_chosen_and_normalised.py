"""What is a dependency by accident or by place: maxima, conditions, sums that are dropped, own normalisations."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.structure.edit import masked, shrink
from autoprune.structure.examples import Example
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Structure


class Sounds(nn.Module):
    """Two convolutions over time with a module behind each."""

    def __init__(self, between: Callable[[int], nn.Module], widths: tuple[int, int] = (8, 6)) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(2, widths[0], 3, padding=1), nn.Conv1d(widths[0], widths[1], 3, padding=1)
        self.after_a, self.after_b = between(widths[0]), between(widths[1])
        self.out = nn.Linear(widths[1], 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.after_a(self.a(x))
        return self.out(self.after_b(self.b(torch.tanh(hidden))).mean(2))


class OverNeighbours(nn.Module):
    """Divides by the size of each channel and the next one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x / (1.0 + x**2 + F.pad(x, (0, 0, 0, 1))[:, 1:] ** 2).sqrt()


class OverTime(nn.Module):
    """Every channel by itself over all times, and never below a threshold of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.least = nn.Parameter(torch.linspace(-1.0, 2.0, channels)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(x / (x.abs().mean(2, keepdim=True) + 0.1), self.least)


class OverPairs(nn.Module):
    """Two channels together, and all times."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(channels, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        pairs = x.unflatten(1, (-1, 2))
        return self.scale * (pairs / (pairs.std((2, 3), keepdim=True) + 0.1)).flatten(1, 2)


class Standardised(nn.Module):
    """Less a mean, by a deviation, times a logarithm: what is divided by, or is in a logarithm, can be no zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.randn(channels, 1))
        self.register_buffer("spread", torch.rand(channels, 1) + 0.5)
        self.bound = nn.Parameter(torch.rand(channels) + 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.spread * self.bound.log()[:, None]


def equal(network: nn.Module, structure: Structure, x: Tensor) -> None:
    rng = np.random.default_rng(0)
    for _ in range(4):
        plan = structure.plan(np.array([rng.choice(group.levels) for group in structure.groups]))
        ranking = {group.name: torch.from_numpy(rng.permutation(group.units)) for group in structure.groups}
        with torch.no_grad():
            with masked(network, structure, plan, ranking):
                expected = Example(x).outputs(network)
            small = Example(x).outputs(shrink(network, structure, plan, ranking))
        for name, tensor in expected.items():
            assert torch.allclose(small[name], tensor, atol=1e-5), name


@pytest.mark.parametrize(
    ("between", "units"), [(OverTime, [8, 6]), (OverPairs, [4, 3]), (Standardised, [8, 6]), (nn.Identity, [8, 6])]
)
def test_places_that_are_normalised_together_are_no_units(
    between: Callable[[int], nn.Module], units: list[int]
) -> None:
    torch.manual_seed(0)
    network, x = Sounds(between).eval(), torch.randn(2, 2, 12)
    structure = find_structure(network, x)
    assert structure.names == ("a", "b")
    assert structure.units.tolist() == units
    assert all(group.exact for group in structure.groups)
    equal(network, structure, x)


@pytest.mark.parametrize("between", [OverNeighbours, lambda channels: nn.LocalResponseNorm(3, alpha=0.5)])
def test_channels_that_neighbours_normalise_are_offered_when_asked_for(between: Callable[[int], nn.Module]) -> None:
    torch.manual_seed(0)
    network, x = Sounds(between).eval(), torch.randn(1, 2, 12)
    with pytest.raises(ValueError, match=r"normalised together by after_a.*structure.inexact=true"):
        find_structure(network, x)
    structure = find_structure(network, x, inexact=True)
    assert [(group.name, group.units, group.exact) for group in structure.groups] == [("a", 8, False), ("b", 6, False)]


def test_a_layer_norm_over_channels_and_places_of_one_loses_channels() -> None:
    torch.manual_seed(0)
    squeezed = nn.Sequential(
        nn.AdaptiveAvgPool1d(1), nn.Conv1d(2, 9, 1), nn.LayerNorm([9, 1]), nn.ReLU(), nn.Conv1d(9, 4, 1), nn.Flatten()
    )
    structure = find_structure(squeezed, torch.randn(1, 2, 5), inexact=True)
    small = shrink(squeezed, structure, structure.plan(np.array([4])), {"1": torch.arange(9)})
    assert small[2].normalized_shape == (4, 1)
    assert small(torch.randn(3, 2, 5)).shape == (3, 4)


class Critics(nn.Module):
    """The smaller of two, or one of two by a condition."""

    def __init__(self, choose: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = (nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 1)) for _ in range(2))
        self.choose = choose

    def forward(self, x: Tensor) -> Tensor:
        return self.choose(self.first(x), self.second(x))


@pytest.mark.parametrize(
    "choose",
    [
        torch.minimum,
        lambda a, b: torch.max(a, b),
        lambda a, b: torch.stack([a, b]).amin(0),
        lambda a, b: torch.cat([a, b], 1).max(1).values,
        lambda a, b: torch.where(a > b, a, b),
    ],
)
def test_what_was_not_chosen_this_time_is_read_all_the_same(choose: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    network, x = Critics(choose).eval(), torch.randn(1, 4)
    structure = find_structure(network, x)
    assert structure.names == ("first.0", "second.0")
    assert set(structure.unprunable.values()) == {"the network's output"}
    equal(network, structure, x)


class Steps(nn.Module):
    """Gated sums of which a step uses one half and hands on the other; the last one hands on to nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.used = 4
        self.shared = nn.Linear(5, 14)
        self.own = nn.ModuleList(nn.Linear(7, 14) for _ in range(2))
        self.mask = nn.Linear(3, 5)
        self.out = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        total, mask = torch.zeros(len(x), 1), torch.ones_like(x)
        for own in self.own:
            hidden = F.glu(self.shared(mask * x))
            hidden = hidden + F.glu(own(hidden))
            total, mask = total + hidden[:, : self.used], self.mask(hidden[:, self.used :]).sigmoid()
        return self.out(total)


def test_a_sum_of_which_a_part_is_dropped_has_to_fit_all_the_same() -> None:
    torch.manual_seed(0)
    network, x = Steps().eval(), torch.randn(6, 5)
    structure = find_structure(network, x)
    assert [(group.name, group.units) for group in structure.groups] == [("shared", 4), ("shared#2", 3)]
    assert [number.name for number in structure.groups[0].attributes] == ["used"]
    equal(network, structure, x)


class ByLength(nn.Module):
    """Every time's channels by their length, which zeros leave as it is."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(channels) + 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale[:, None] * x / (x.square().sum(1, keepdim=True).sqrt() + 1e-3)


class Gated(nn.Module):
    """A map of places, from two numbers for each: `of` all channels."""

    def __init__(self, of: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.of, self.gate = of, nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.of(x)).sigmoid()


LENGTHS: list[Callable[[Tensor], Tensor]] = [
    lambda x: x.square().sum(1, keepdim=True), lambda x: x.norm(dim=1, keepdim=True),
    lambda x: torch.linalg.vector_norm(x, dim=1, keepdim=True), lambda x: torch.sum(x, 1).unsqueeze(1),
]  # fmt: skip
MEANS: list[Callable[[Tensor], Tensor]] = [
    lambda x: x.mean(1, keepdim=True), lambda x: torch.amax(x, dim=1, keepdim=True),
    lambda x: x.max(1, keepdim=True).values, lambda x: torch.mean(x, dim=1).unsqueeze(1),
]  # fmt: skip


class Normalised(nn.Module):
    """torch's own function for it."""

    def __init__(self, _: int) -> None:
        super().__init__()
        self.dim = 1

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=self.dim)


@pytest.mark.parametrize("between", [ByLength, Normalised, *(lambda _, of=of: Gated(of) for of in LENGTHS)])
def test_a_sum_over_channels_is_one_of_those_that_are_left(between: Callable[[int], nn.Module]) -> None:
    torch.manual_seed(0)
    network, x = Sounds(between).eval(), torch.randn(1, 2, 12)
    structure = find_structure(network, x)
    assert [(group.name, group.units, group.exact) for group in structure.groups] == [("a", 8, True), ("b", 6, True)]
    equal(network, structure, x)


@pytest.mark.parametrize("of", MEANS)
def test_a_mean_or_a_maximum_over_channels_is_another_one_without_some(of: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    network, x = Sounds(lambda _: Gated(of)).eval(), torch.randn(1, 2, 12)
    with pytest.raises(ValueError, match=r"a mean or a maximum over its units.*structure.inexact=true"):
        find_structure(network, x)
    structure = find_structure(network, x, inexact=True)
    assert [(group.name, group.units, group.exact) for group in structure.groups] == [("a", 8, False), ("b", 6, False)]
    small = shrink(network, structure, structure.plan(np.array([3, 2])), {"a": torch.arange(8), "b": torch.arange(6)})
    assert small(x).shape == (1, 3)
