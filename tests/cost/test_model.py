from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autoprune.cost.model import CostModel, QuadraticCost
from autoprune.cost.observed import NetworkCosts
from autoprune.structure.edit import shrink
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Structure
from autoprune.task import networks
from tests.models import PRUNABLE, Network, random_plan, random_ranking

NETWORKS = {
    **PRUNABLE,
    "resnet20": Network(networks.resnet20, (1, 28, 28)),
    "mobilenet_v1": Network(networks.mobilenet_v1, (1, 28, 28)),
}


@cache
def structure_of(name: str) -> Structure:
    return NETWORKS[name].structure()


def exact_costs(name: str) -> list[CostModel]:
    costs = NETWORKS[name].costs()
    return [costs.macs(), costs.params(), costs.parameter_bytes()]


def counted_macs(model: nn.Module, network: Network) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(network.inputs())
    flops: int = counter.get_total_flops()
    return flops // 2  # PyTorch counts two operations for one multiply–accumulate


@pytest.mark.parametrize("name", NETWORKS)
def test_costs_are_those_of_the_shrunk_network(name: str) -> None:
    network, structure = NETWORKS[name], structure_of(name)
    model, costs = network.model(), network.costs()
    macs, params, size = costs.macs(), costs.params(), costs.parameter_bytes()
    plans = [structure.dense, structure.plan(structure.floor), *(random_plan(structure, seed=s) for s in range(3))]
    for plan in plans:
        small, kept = shrink(model, structure, plan, random_ranking(structure, seed=1)), np.array(plan.kept)
        assert macs(kept) == counted_macs(small, network)
        assert params(kept) == sum(parameter.numel() for parameter in small.parameters())
        tensors = [tensor for tensor in small.state_dict().values() if tensor.is_floating_point()]
        assert size(kept) == sum(t.numel() * t.element_size() for t in tensors)


def test_known_costs() -> None:
    """Counted by hand: Conv2d(3, 8, 3) and Conv2d(8, 10, 3) on 8×8 and 4×4, BatchNorms, Linear(10, 5)."""
    costs, kept = NETWORKS["plain"].costs(), np.array([8, 10])
    params = float(costs.params()(kept))
    assert costs.macs()(kept) == 3 * 8 * 9 * 64 + 8 * 10 * 9 * 16 + 10 * 5
    assert params == (3 * 8 * 9 + 8) + 16 + (8 * 10 * 9 + 10) + 20 + 55
    assert costs.weights()(kept) == 3 * 8 * 9 + 8 * 10 * 9 + 10 * 5
    assert costs.parameter_bytes()(kept) == 4 * (params + 16 + 20)


def test_a_batch_of_examples_costs_what_one_does() -> None:
    network = PRUNABLE["tokens"]
    structure = network.structure()
    for samples in (1, 4):
        costs = NetworkCosts(network.model(), structure, network.inputs(samples))
        assert costs.macs()(structure.units) == 7 * 2 * 6 * 12 + 6 * 5


class FoldedFrames(nn.Module):
    """Three frames of a sample go through a convolution and a linear layer as if they were samples."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.hidden, self.output = nn.Conv2d(1, 4, 3), nn.Linear(4, 6), nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = torch.relu(self.conv(x.flatten(0, 1).unsqueeze(1))).mean((2, 3))
        return self.output(torch.relu(self.hidden(frames)).unflatten(0, x.shape[:2]).mean(1))


def test_layers_that_see_parts_of_a_sample_count_all_of_them() -> None:
    network = Network(FoldedFrames)
    for samples in (1, 2):
        structure = find_structure(network.model(), network.inputs(samples))
        costs = NetworkCosts(network.model(), structure, network.inputs(samples))
        assert costs.macs()(structure.units) == counted_macs(network.model(), network)


def test_costs_of_large_networks_stay_exact() -> None:
    """Integers up to 2^53: a billion MACs more or less one are told apart."""
    one = QuadraticCost.bilinear(
        "macs", "MACs", np.array([[1, 0], [1, 0]]), np.array([[1, 0], [0, 1]]), np.array([10**6, 1])
    )
    assert one(np.array([50_000])) - one(np.array([49_999])) == 10**6 * (50_000**2 - 49_999**2) + 1


def test_a_unit_more_never_costs_less() -> None:
    for name in NETWORKS:
        structure = structure_of(name)
        for cost in exact_costs(name):
            for group, members in enumerate(structure.groups):
                assert (np.diff(cost.along(structure.floor, group, np.array(members.levels))) > 0).all(), (name, group)
