"""Plans are judged by the values that their networks will have: codes as in the network that is handed out."""

import numpy as np
import pytest
import torch

from autoprune.evaluation.ordered import OrderedNetwork
from autoprune.quantize.shared_weights import shared_values, write_codes
from autoprune.repair.repair import Repair
from autoprune.structure.code_bits import bits_of, with_bits
from autoprune.structure.edit import shrink
from autoprune.structure.graph import find_structure
from tests.language_models import TINY
from tests.models import PRUNABLE
from tests.tasks import prepared, tiny_task


@pytest.mark.parametrize("prune", [("weights",), None])
def test_views_compute_what_the_coded_network_does_whatever_was_bound_before(prune: tuple[str, ...] | None) -> None:
    network = PRUNABLE["residual"]
    model, inputs = network.model(), network.inputs(4)
    structure = with_bits(find_structure(model, inputs[:1], prune=prune), model, (2, 5))
    ranking = {}
    for group in structure.groups:
        weight = model.get_submodule(group.name).get_parameter("weight").detach() if group.compared else None
        order = torch.randperm(group.units) if weight is None else weight.flatten(1).abs().argsort(dim=1).argsort(dim=1)
        ranking[group.name] = order.to(torch.int16) if group.compared else order
    ordered, rng = OrderedNetwork(model, structure, ranking, example_input=inputs[:1]), np.random.default_rng(0)
    kept = np.array([group.levels[len(group.levels) // 2] for group in structure.groups])
    with torch.no_grad():
        for _ in range(12):  # one or two groups change from plan to plan
            for index in rng.integers(0, len(kept), 2):
                kept[index] = rng.choice(structure.groups[index].levels)
            plan = structure.plan(kept)
            small = shrink(model, structure, plan, ranking)
            for name, bits in bits_of(structure, plan).items():
                weight = small.get_submodule(name).get_parameter("weight")
                weight.copy_(shared_values(weight, bits))
            assert (ordered.at(plan.kept)(inputs) - small(inputs)).abs().max() <= 2e-4, plan
        assert (ordered.at(structure.dense.kept)(inputs) - model(inputs)).abs().max() <= 1e-4


def test_fewer_bits_are_farther_from_the_dense_network_and_handed_out_networks_have_them() -> None:
    problem = prepared(
        tiny_task("residual", prune=("weights",)), budget="encoded_bytes:0.6", bits=(2, 4, 8), repair=Repair(False)
    )
    plans, units = [], problem.structure.units
    for bits in (2, 4, 8):
        plans.append(
            problem.structure.plan(np.where([bool(group.coded) for group in problem.structure.groups], bits, units))
        )
    kl = [outcome.metrics.kl for outcome in problem.objective.uncharged.evaluate([*plans, problem.structure.dense])]
    assert kl == sorted(kl, reverse=True)
    assert kl[0] > 3 * kl[1]
    for plan, bits in zip(plans, (2, 4, 8), strict=True):
        network = problem.pruned(plan)
        for name in ("conv1", "conv2", "conv3", "fc"):
            assert len(network.get_submodule(name).get_parameter("weight").unique()) <= 2**bits


def test_codes_of_layers_that_are_passed_over_are_left_out() -> None:
    task = TINY["llama"]()
    structure = find_structure(task.model, task.example_input, prune=("weights", "ffn"), forward=task.forward)
    structure = with_bits(structure, task.model, (2,))
    kept = np.array(
        [0 if group.skips else group.levels[0] if group.coded else group.units for group in structure.groups]
    )
    plan = structure.plan(kept)
    ranking = {group.name: torch.arange(group.units) for group in structure.groups}
    small = shrink(task.model, structure, plan, ranking)
    write_codes(small, bits_of(structure, plan))
    query = next(module for name, module in small.named_modules() if name.endswith("q_proj"))
    assert len(query.get_parameter("weight").unique()) <= 4


def test_zeros_stay_and_values_are_at_half_precision() -> None:
    weight = torch.randn(40, 30) * (torch.rand(40, 30) < 0.3)
    coded = shared_values(weight, 3)
    assert torch.equal(coded[weight == 0], torch.zeros_like(coded[weight == 0]))
    assert len(coded[weight != 0].unique()) <= 8
    assert torch.equal(coded, coded.half().float())
    assert torch.equal(shared_values(torch.zeros(3, 4), 2), torch.zeros(3, 4))
    large = torch.randn(400, 400)  # of which a part is fitted
    assert (shared_values(large, 8) - large).abs().max() < 0.2
