"""Sizes that stand as numbers in a module's code go down with the units that they count."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoprune.export.network import load_network, save_network
from autoprune.structure.graph import find_structure
from autoprune.structure.literal_sizes import (
    LiteralSizes,
    changed_literals,
    literal_sizes,
    set_literal_size,
)
from autoprune.structure.verify import alive
from tests.structure.halves import checked_half

STATES = 12  # a file's own number


class Tutorial(nn.Module):
    """A LeNet as it is often written down; 8 is also its batch in one call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 8, 3)
        self.fc1, self.fc2 = nn.Linear(8 * 2 * 2, 10), nn.Linear(10, 3)

    def flat(self, x: Tensor) -> Tensor:
        return x.view(-1, 8 * 2 * 2)

    def forward(self, x: Tensor) -> Any:
        x = self.conv2(self.conv1(x).relu()).relu()
        return self.fc2(self.fc1(self.flat(x)).relu().reshape(x.shape[0], 10))


class Recurrent(nn.Module):
    """The first state is as long as a number of the file says, and what is read of the states a slice of the code's."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.head = nn.LSTM(3, STATES, batch_first=True, bidirectional=True), nn.Linear(24, 2)

    def forward(self, x: Tensor) -> Any:
        first = torch.zeros(2, len(x), STATES), torch.zeros(2, len(x), STATES)
        states, _ = self.cells(x, first)
        return self.head(torch.cat([states[:, -1, :12], states[:, 0, -12:]], 1))


def made_by(width: int) -> nn.Module:
    class Enclosed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 3 * width), nn.Linear(3 * width, 2)

        def forward(self, x: Tensor) -> Any:
            return self.second(
                torch.cat([part.tanh() for part in self.first(x).unflatten(-1, (3, width)).unbind(1)], 1)
            )

    return Enclosed()


NETWORKS = {
    "view": (Tutorial, torch.randn(1, 1, 6, 6), {"conv1", "conv2", "fc1"}),
    "states": (Recurrent, torch.randn(1, 5, 3), {"cells"}),
    "closure": (lambda: made_by(6), torch.randn(1, 4), {"first"}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_sizes_in_the_code_follow_the_units(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build, example, names = NETWORKS[name]
    network = build().eval()
    structure = find_structure(network, example)
    assert set(structure.names) == names
    x = torch.randn(8, *example.shape[1:])  # as many samples as conv2 has channels
    with alive(network), torch.no_grad():
        small = checked_half(network, structure, x, folder=tmp_path, atol=1e-6)
        assert torch.equal(copy.deepcopy(small)(x), small(x))
    assert isinstance(small, type(network))
    assert not isinstance(network, LiteralSizes)


def test_other_numbers_are_gone_when_they_are_set_back() -> None:
    network = Tutorial()
    assert literal_sizes(network) == {10: 10, 32: 32}
    set_literal_size(network, 32, 16)
    set_literal_size(network, 10, 5)
    assert changed_literals(nn.Sequential(network)) == {"0": {"32": 16, "10": 5}}
    assert network.flat(torch.zeros(4, 16)).shape == (4, 16)
    again = pickle.loads(pickle.dumps(network))
    assert type(again) is type(network)
    assert again.flat(torch.zeros(2, 32)).shape == (4, 16)
    set_literal_size(network, 32, 32)
    set_literal_size(network, 10, 10)
    assert type(network) is Tutorial
    assert changed_literals(network) == {}
    assert literal_sizes(nn.Linear(800, 2)) == {}, "torch's own code names no sizes"


def test_a_record_of_other_code_is_refused(tmp_path: Path) -> None:
    network = Tutorial()
    set_literal_size(network, 32, 16)
    save_network(network, tmp_path, architecture=None)
    with pytest.raises(ValueError, match=r"the code of '' has no number 32"):
        load_network(tmp_path, model=nn.Sequential(*network.children()))
