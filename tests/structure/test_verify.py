"""Groups are offered only where removing their units is masking them, by whatever luck units are chosen."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from autoprune.structure.graph import find_structure


class Rolled(nn.Module):
    """Units whose places depend on how many there are, each read by one column all the same."""

    def __init__(self, places: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.places, self.a, self.b, self.c = places, nn.Linear(5, 12), nn.Linear(12, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c(torch.relu(self.b(self.places(torch.relu(self.a(x))))))
        return y


@pytest.mark.parametrize("places", [lambda x: torch.roll(x, 2, dims=1), lambda x: x.roll(-1, 1) * 2])
@pytest.mark.parametrize("seed", range(3))
def test_units_whose_place_depends_on_their_number_stay(places: Callable[[Tensor], Tensor], seed: int) -> None:
    """By the luck of which units stay, removing them may be masking them: no unit is in all plans that are tried."""
    torch.manual_seed(seed)
    structure = find_structure(Rolled(places), torch.randn(2, 5))
    assert structure.names == ("b",), structure.unprunable
    assert "differs from masking" in structure.unprunable["a"]


class Counting(nn.Module):
    """It writes into its own buffers while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 12), nn.Linear(12, 3)
        self.calls: Tensor
        self.scale: Tensor
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("scale", torch.rand(12))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.scale.clamp_(0.1, 0.9)
        y: Tensor = self.b(torch.relu(self.a(x)) * self.scale)
        return y


def test_a_network_that_writes_into_its_buffers_has_groups() -> None:
    (group,) = find_structure(Counting(), torch.randn(2, 5)).groups
    assert {(member.layer, member.axis) for member in group.members} == {("a", "out"), ("", "scale/0"), ("b", "in")}


class Unpooled(nn.Module):
    """As SegNet: what is pooled is put back by its indices, which have no derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(2, 10, 3, padding=1), nn.Conv2d(10, 14, 3, padding=1)
        self.up, self.last = nn.Conv2d(14, 10, 3, padding=1), nn.Conv2d(10, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled, indices = nn.functional.max_pool2d(torch.relu(self.down(x)), 2, return_indices=True)
        y: Tensor = self.last(nn.functional.max_unpool2d(self.up(torch.relu(self.deep(pooled))), indices, [2, 2]))
        return y


def test_layers_that_meet_by_indices_go_together() -> None:
    torch.manual_seed(0)
    structure = find_structure(Unpooled(), torch.randn(1, 2, 8, 8))
    members = {group.name: {(m.axis, m.layer) for m in group.members} for group in structure.groups}
    assert members["down"] == {("out", "down"), ("in", "deep"), ("out", "up"), ("in", "last")}
    assert set(members) == {"down", "deep"}
