import numpy as np
import pytest
import torch
from torch import nn

from autoprune.cost.budget import parse_budget
from autoprune.cost.model import never_falls
from autoprune.cost.projection import Projector
from autoprune.structure.edit import shrink
from tests.cost.stairs import assert_filled
from tests.models import PRUNABLE, Network, random_plan, random_ranking


def moved(model: nn.Module, network: Network, *, weight: int, activation: int) -> int:
    """Counted by hooks: the weights of what runs, and its outputs twice."""
    total = 0

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += 2 * activation * output.numel()

    layers = [m for m in model.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Linear)]
    for layer in layers:
        total += weight * sum(parameter.numel() for parameter in layer.parameters())
        layer.register_forward_hook(count)
    with torch.no_grad():
        model(network.inputs())
    return total


@pytest.mark.parametrize("name", PRUNABLE)
def test_bytes_are_those_of_the_shrunk_network(name: str) -> None:
    network, structure = PRUNABLE[name], PRUNABLE[name].structure()
    cost = network.costs().bytes_moved(weight_bytes=1, activation_bytes=2)
    for plan in (structure.dense, structure.plan(structure.floor), random_plan(structure, seed=3)):
        small = shrink(network.model(), structure, plan, random_ranking(structure, seed=1))
        assert cost(np.array(plan.kept)) == moved(small, network, weight=1, activation=2)


def test_energy_is_what_macs_and_bytes_take() -> None:
    structure, costs = PRUNABLE["residual"].structure(), PRUNABLE["residual"].costs()
    cost = costs.energy(pj_per_mac=4.6, pj_per_byte=160.0, weight_bytes=4, activation_bytes=4)
    counted, bytes_ = costs.macs(), costs.bytes_moved(weight_bytes=4, activation_bytes=4)
    for kept in (structure.units, structure.floor):
        assert cost(kept) == pytest.approx(1e-9 * (4.6 * counted(kept) + 160 * bytes_(kept)))
    assert (cost.name, cost.unit) == ("energy", "mJ")
    assert never_falls(cost)


def test_plans_fill_a_budget_of_energy() -> None:
    structure, costs = PRUNABLE["digits_net"].structure(), PRUNABLE["digits_net"].costs()
    cost = costs.energy(pj_per_mac=4.6, pj_per_byte=160.0)
    dense = float(cost(structure.units))
    for text, limit in (("energy:0.5", dense / 2), (f"energy:{dense * 400:.6f}uJ", dense * 0.4)):
        budget = parse_budget(text, {"energy": cost}, structure)
        assert budget.limit == pytest.approx(limit)
        kept = Projector(structure, budget).project(np.ones(len(structure.units)))
        assert_filled(Projector(structure, budget), kept)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_energies_that_are_none_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match=rf"pj_per_byte.*at least 0, got {value}"):
        PRUNABLE["residual"].costs().energy(pj_per_mac=1.0, pj_per_byte=value)
