"""A file meets its limit to the byte, or its network stays as it is and says so."""

import pytest
import torch
from torch import Tensor, nn

from autoprune.export.apz import apz_size
from autoprune.export.byte_limit import within_bytes


def network(seed: int) -> nn.Module:
    """Two matrices, mostly zero, whose weights have some twenty values."""
    generator = torch.Generator().manual_seed(seed)
    layers = nn.Sequential(nn.Linear(60, 40), nn.ReLU(), nn.Linear(40, 30)).eval()
    with torch.no_grad():
        for name, parameter in layers.named_parameters():
            values = torch.randn(parameter.shape, generator=generator).mul(3).round() / 8
            kept = torch.rand(parameter.shape, generator=generator) < (0.3 if name.endswith("weight") else 1)
            parameter.copy_(values * kept)
    return layers


def magnitudes(layers: nn.Module) -> dict[str, Tensor]:
    """Ties in values are broken at random."""
    weights = {name: parameter.detach() for name, parameter in layers.named_parameters() if parameter.ndim > 1}
    generator = torch.Generator().manual_seed(9)
    return {
        name: weight.abs() + 1e-3 * torch.rand(weight.shape, generator=generator) for name, weight in weights.items()
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.999, 0.98, 0.96])
def test_the_smallest_weights_go_and_one_less_would_not_do(seed: int, share: float) -> None:
    layers = network(seed)
    importance, whole = magnitudes(layers), apz_size(layers)["apz"]
    limited = within_bytes(layers, share * whole, architecture=None, magnitudes=importance)
    assert limited.meets
    assert limited.bytes == apz_size(limited.network)["apz"] <= share * whole
    left = dict(limited.network.named_parameters())
    went = {name: (weight != 0) & (left[name] == 0) for name, weight in layers.named_parameters()}
    assert sum(int(each.sum()) for each in went.values()) == limited.removed > 0
    assert all(torch.equal(left[name][~went[name]], weight[~went[name]]) for name, weight in layers.named_parameters())
    most = max(importance[name][went[name]].max() for name in importance if went[name].any())
    assert all((importance[name][(left[name] != 0)] >= most).all() for name in importance)
    with torch.no_grad():  # the last that went comes back
        for name in importance:
            last = went[name] & (importance[name] == most)
            left[name].copy_(torch.where(last, dict(layers.named_parameters())[name], left[name]))
    assert apz_size(limited.network)["apz"] > share * whole


def test_whole_matrices_lose_nothing_however_small_their_weights_are() -> None:
    """A matrix without zeros has no index, and would need one for the first weight that goes."""
    layers = network(1)
    with torch.no_grad():
        layers[2].weight.copy_(torch.where(layers[2].weight < 0, -0.001, 0.001))
    size = apz_size(layers)["apz"]
    limited = within_bytes(layers, 0.95 * size, architecture=None, magnitudes=magnitudes(layers))
    assert limited.meets
    assert limited.removed > 0
    assert torch.equal(limited.network.get_parameter("2.weight"), layers.get_parameter("2.weight"))


def test_what_is_small_enough_stays_and_what_is_out_of_reach_is_not_destroyed() -> None:
    layers = network(0)
    size = apz_size(layers)["apz"]
    for limit, meets in ((size, True), (size / 2, False), (0, False)):
        limited = within_bytes(layers, limit, architecture=None, magnitudes=magnitudes(layers))
        assert limited.network is layers
        assert limited.as_json() == {"bytes": size, "limit": limit, "removed": 0, "meets": meets}
    assert not within_bytes(layers, size - 1, architecture=None, magnitudes={}).meets
