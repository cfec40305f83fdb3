"""Networks that compute with complex numbers, by layers or by parameters, are pruned like others."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoprune.importance.unit_weights import is_plain_reader, unit_weights
from autoprune.structure.graph import find_structure
from tests.structure.halves import checked_half


class Parts(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.complex(x.real.relu(), x.imag.relu())


class Layers(nn.Module):
    """Complex convolutions and a complex linear layer, of a series' real and imaginary parts."""

    def __init__(self) -> None:
        super().__init__()
        kind = torch.complex64
        self.first, self.second = nn.Conv1d(1, 6, 3, dtype=kind), nn.Conv1d(6, 5, 3, dtype=kind)
        self.last, self.parts = nn.Linear(5, 2, dtype=kind), Parts()

    def forward(self, x: Tensor) -> Any:
        x = self.parts(self.first(torch.view_as_complex(x)[:, None]))
        return self.last(self.parts(self.second(x)).mean(-1)).abs()


class Operator(nn.Module):
    """A Fourier neural operator (arXiv 2010.08895): low frequencies are mixed by complex matrices, beside a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.beside, self.last = nn.Conv1d(2, 6, 1), nn.Conv1d(6, 8, 1), nn.Conv1d(8, 2, 1)
        self.mixing = nn.Parameter(torch.randn(6, 8, 3, dtype=torch.complex64) * 0.3)

    def forward(self, x: Tensor) -> Any:
        x = self.lift(x)
        low = torch.fft.rfft(x)[..., :3]
        waves = torch.fft.irfft(torch.einsum("bix,iox->box", low, self.mixing), n=x.shape[-1])
        return self.last(torch.tanh(waves + self.beside(x)))


NETWORKS = {
    "layers": (Layers, torch.randn(1, 9, 2), {"first": 6, "second": 5}),
    "operator": (Operator, torch.randn(1, 2, 8), {"lift": 6, "mixing": 8}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_units_of_complex_numbers_go_as_others_do(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build, x, by_hand = NETWORKS[name]
    network = build().eval()
    structure = find_structure(network, x)
    assert {group.name: group.units for group in structure.groups} == by_hand
    checked_half(network, structure, x, folder=tmp_path)


def test_both_parts_of_a_weight_count() -> None:
    network = Layers().eval()
    group = find_structure(network, torch.randn(1, 9, 2)).groups[0]
    (weights,) = unit_weights(network, group, "out")
    assert torch.allclose(weights.norm(dim=1), network.first.weight.flatten(1).abs().square().sum(1).sqrt())
    assert not is_plain_reader(network.last)
    with pytest.raises(ValueError, match="complex numbers, which no criterion compares one by one"):
        find_structure(network, torch.randn(1, 9, 2), prune=("weights",))
