"""Bytes on the disk, predicted: near what is written, for any plan, and usable as a budget."""

from functools import partial

import numpy as np
import pytest
import torch

from autoprune.cost.budget import parse_budget
from autoprune.cost.counted import CostSettings, Countable
from autoprune.cost.encoded_bytes import EncodedBytes
from autoprune.cost.model import plans_along
from autoprune.cost.projection import Projector
from autoprune.export.apz import apz_size
from autoprune.quantize.quantized_network import quantize_codebook
from autoprune.quantize.shared_weights import write_codes
from autoprune.structure.code_bits import bits_of, with_bits
from autoprune.structure.edit import shrink
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Structure
from autoprune.task.task import Task, plain_forward
from autoprune.testing import check_cost_model
from tests.language_models import causal_task


@pytest.fixture(scope="module")
def made() -> tuple[Task, Structure]:
    task = causal_task("llama", hidden_size=64, intermediate_size=160)
    return task, find_structure(task.model, task.example_input, prune=("weights",), forward=task.forward)


def counted(task: Task, structure: Structure, **settings: int) -> Countable:
    known = CostSettings(**settings)  # type: ignore[arg-type]
    return Countable(task.model, structure, task.example_input, forward=task.forward, settings=known)


def pruned(task: Task, structure: Structure, kept: np.ndarray) -> torch.nn.Module:
    ranking = {}
    for group in structure.groups:
        weight = task.model.get_submodule(group.compared[0].layer).get_parameter("weight").detach()
        ranking[group.name] = weight.abs().argsort(dim=1, descending=True).argsort(dim=1).to(torch.int16)
    return shrink(task.model, structure, structure.plan(kept), ranking)


@pytest.mark.parametrize("density", [0.2, 1.0])
def test_the_prediction_is_near_what_is_written(made: tuple[Task, Structure], density: float) -> None:
    task, structure = made
    cost = counted(task, structure)["encoded_bytes"]
    kept = np.maximum((structure.units * density).astype(np.int64), 1)
    written = apz_size(pruned(task, structure, kept))["apz"]
    assert float(cost(kept)) == pytest.approx(written, rel=0.03)
    assert isinstance(cost, EncodedBytes)
    assert 0 <= cost.error < 0.03


@pytest.mark.slow
def test_codes_take_their_bits(made: tuple[Task, Structure]) -> None:
    task, structure = made
    kept = np.maximum(structure.units // 4, 1)
    shared = partial(quantize_codebook, initialisation="linear", steps=0, batch_size=128, learning_rate=0.001)
    layers = {matrix.layer: 4 for group in structure.groups for matrix in group.compared}
    network = shared(
        pruned(task, structure, kept), task, bits=4, layer_bits=layers, generator=torch.Generator().manual_seed(0)
    )
    cost = counted(task, structure, encoded_bits=4)["encoded_bytes"]
    assert float(cost(kept)) < 0.5 * float(counted(task, structure)["encoded_bytes"](kept))
    assert apz_size(network)["apz"] < apz_size(pruned(task, structure, kept))["apz"]


@pytest.mark.parametrize("bits", [2, 32])
def test_many_plans_at_once_cost_what_each_does_and_a_budget_is_met(made: tuple[Task, Structure], bits: int) -> None:
    task, structure = made
    costs = counted(task, structure, encoded_bits=bits)
    cost = costs["encoded_bytes"]
    rng = np.random.default_rng(0)
    plans = np.stack([[rng.choice(group.levels) for group in structure.groups] for _ in range(20)])
    assert np.allclose(cost(plans), [float(cost(plan)) for plan in plans])
    levels = np.array(structure.groups[0].levels)
    assert np.allclose(cost.along(plans[0], 0, levels), cost(plans_along(plans[0], 0, levels)))
    middle = float(cost(structure.floor) + cost(structure.units)) / 2
    projector = Projector(structure, parse_budget(f"encoded_bytes:{middle / 1000:.3f}kB", costs, structure))
    for density in rng.random((5, len(structure.groups))) + 0.01:
        spent = float(cost(projector.project(density)))
        assert 0.9 * middle < spent <= middle * 1.001


def test_bits_are_a_codebooks_or_none() -> None:
    with pytest.raises(ValueError, match="encoded_bits"):
        CostSettings(encoded_bits=12)


@pytest.mark.parametrize(
    ("density", "uneven"), [(0.05, False), (0.1, False), (0.4, False), (1.0, False), (0.05, True), (0.3, True)]
)
def test_pairs_are_predicted_within_two_per_cent(density: float, uneven: bool) -> None:
    """Of weights that are spread as trained ones, whose largest are kept.

    Uneven: neighbouring inputs matter twenty times as much as others, so that an index takes up to a quarter less.
    """
    model = torch.nn.Sequential(torch.nn.Linear(300, 200), torch.nn.ReLU(), torch.nn.Linear(200, 50)).eval()
    with torch.no_grad():
        for seed, layer in enumerate((model[0], model[2])):
            laplace = np.random.default_rng(seed).laplace(size=layer.weight.shape).astype(np.float32)
            if uneven:
                laplace *= np.exp(1.5 * np.sin(np.arange(laplace.shape[1]) / 15)).astype(np.float32)
            layer.weight.copy_(torch.from_numpy(laplace))
    example = torch.zeros(1, 300)
    structure = with_bits(find_structure(model, example, prune=("weights",)), model, (2, 3, 4, 5, 6, 8))
    ranking = {
        group.name: (
            model.get_submodule(group.name).get_parameter("weight").abs().argsort(dim=1, descending=True).argsort(dim=1)
            if group.compared
            else torch.arange(group.units)
        )
        for group in structure.groups
    }
    cost = Countable(model, structure, example, forward=plain_forward, settings=CostSettings())["encoded_bytes"]
    check_cost_model(cost, structure)
    for bits in ((4, 3), (5, 5), (8, 2), (32, 6)):
        kept = np.maximum((structure.units * density).astype(np.int64), 1)
        kept[1::2] = bits
        plan = structure.plan(kept)
        network = shrink(model, structure, plan, ranking)
        write_codes(network, bits_of(structure, plan))
        tolerated = 0.03 if uneven else 0.02
        assert float(cost(kept)) == pytest.approx(apz_size(network)["apz"], rel=tolerated), (density, bits)
        others = np.array([np.random.default_rng(1).choice(group.levels) for group in structure.groups])
        each = np.repeat(kept[None], len(kept), axis=0)
        np.fill_diagonal(each, others)
        assert np.allclose(cost.changed(kept, others), cost(each))


def test_statistics_of_norms_take_as_many_bits_as_files_give_them() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(40, 200), torch.nn.BatchNorm1d(200), torch.nn.Linear(200, 10)).eval()
    for tensor in model[1].state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
    example = torch.zeros(1, 40)
    structure = with_bits(find_structure(model, example, prune=("weights",)), model, (2, 4))
    cost = Countable(model, structure, example, forward=plain_forward, settings=CostSettings())["encoded_bytes"]
    plan = structure.plan(np.where([bool(group.coded) for group in structure.groups], 4, structure.units))
    write_codes(model, bits_of(structure, plan))
    assert float(cost(np.array(plan.kept))) == pytest.approx(apz_size(model)["apz"], rel=0.04)  # 800 bytes are 11 %


def test_what_half_precision_cannot_hold_stays() -> None:
    layer = torch.nn.Linear(3, 2)
    torch.nn.init.constant_(layer.bias, 1e5)
    write_codes(layer, {"": 2})
    assert torch.equal(layer.bias, torch.full((2,), 1e5))


def test_a_large_matrix_is_coded_by_its_extremes_wherever_they_are() -> None:
    """Centroids begin between the extremes: few outliers take codes from all others."""
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(600, 900, bias=False).eval()  # more than what is looked at
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        layer.weight[871, 5], layer.weight[872, 7] = 20.0, -18.0
    network = torch.nn.Sequential(layer, torch.nn.ReLU(), torch.nn.Linear(900, 2))
    example = torch.zeros(1, 600)
    plain = find_structure(network, example, prune=("weights",))
    structure = with_bits(plain, network, (3, 5))
    settings = CostSettings()
    costs = Countable(network, structure, example, forward=plain_forward, settings=settings)
    for bits in (3, 5):
        kept = np.array([bits if group.coded else group.units for group in structure.groups])
        plan = structure.plan(kept)
        coded = shrink(network, structure, plan, {g.name: torch.zeros(0) for g in plain.groups})
        write_codes(coded, bits_of(structure, plan))
        assert float(costs["encoded_bytes"](kept)) == pytest.approx(apz_size(coded)["apz"], rel=0.04)
