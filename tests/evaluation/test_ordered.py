import pickle

import numpy as np
import pytest
import torch

from autoprune.evaluation import ordered as ordered_room
from autoprune.evaluation.ordered import OrderedNetwork
from autoprune.repair.folding import followers
from autoprune.repair.least_squares import LeastSquares, reconstruct
from autoprune.repair.repair import write_reconstruction
from autoprune.structure.edit import masked, shrink
from autoprune.structure.graph import find_structure
from autoprune.task import networks
from tests.language_models import TINY
from tests.models import PRUNABLE, Network, random_plan, random_ranking

SHIPPED = {
    "resnet20": Network(networks.resnet20, (1, 28, 28)),
    "plain20": Network(networks.plain20, (1, 28, 28)),
    "mobilenet_v1": Network(networks.mobilenet_v1, (1, 28, 28)),
}


def ordered_equals_edited(network: Network, *, plans: int) -> None:
    model, inputs = network.model(), network.inputs(3)
    structure = network.structure()
    ranking = random_ranking(structure, seed=0)
    ordered = OrderedNetwork(model, structure, ranking)
    folded = OrderedNetwork(model, structure, ranking, example_input=inputs[:1])
    with torch.no_grad():
        for seed in range(plans):
            plan = random_plan(structure, seed=seed)
            sliced = ordered.at(plan.kept)(inputs)
            assert (sliced - shrink(model, structure, plan, ranking)(inputs)).abs().max() <= 1e-4, plan
            assert (sliced - folded.at(plan.kept)(inputs)).abs().max() <= 1e-4, plan
            with masked(model, structure, plan, ranking):
                assert (sliced - model(inputs)).abs().max() <= 1e-4, plan
        for either in (ordered, folded):
            assert (either.at(structure.dense.kept)(inputs) - model(inputs)).abs().max() <= 1e-4


def test_slices_equal_the_shrunk_and_the_masked_network(network: Network) -> None:
    ordered_equals_edited(network, plans=8)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_attentions_see_the_blocks_of_their_level_whatever_was_bound_before(family: str) -> None:
    task = TINY[family]()
    structure = find_structure(task.model, task.example_input, prune=("keys:4", "attention"))
    ranking = {group.name: torch.arange(group.units) for group in structure.groups}
    ordered, inputs = OrderedNetwork(task.model, structure, ranking), task.data.search.inputs[:2]
    keys = torch.tensor([group.granularity == "key_block" for group in structure.groups])
    rng = torch.Generator().manual_seed(0)
    seen = []
    with torch.inference_mode():
        for _ in range(6):
            levels = torch.where(keys, *torch.randint(1, 5, (2, len(keys)), generator=rng))
            kept = tuple(torch.where(keys, levels, torch.randint(0, 2, (len(keys),), generator=rng)).tolist())
            small = shrink(task.model, structure, structure.plan(np.array(kept)), ranking)
            seen.append(task.forward(ordered.at(kept), inputs))
            assert torch.allclose(seen[-1], task.forward(small, inputs), atol=1e-5), kept
        again = pickle.loads(pickle.dumps(ordered))  # as workers are given it, with a plan bound
        assert torch.equal(task.forward(again.network, inputs), seen[-1])
        for network in (ordered, again):
            dense = task.forward(network.at(structure.dense.kept), inputs)
            assert torch.allclose(dense, task.forward(task.model, inputs), atol=1e-5)
            assert not any(module._forward_pre_hooks for module in network.network.modules())


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_slices_of_the_shipped_networks(name: str) -> None:
    ordered_equals_edited(SHIPPED[name], plans=2)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_slices_equal_the_reconstructed_network(network: Network, batch_norm: bool) -> None:
    """Whatever reads pruned units: convolutions, grouped ones, concatenations, flattened maps, tokens."""
    model, inputs, role = network.model(), network.inputs(9), network.role()
    structure = network.structure()
    ranking = random_ranking(structure, seed=0)
    reconstruction = reconstruct(
        model,
        structure,
        ranking,
        role,
        settings=LeastSquares(ridge=1e-2, rows=400),
        centred=frozenset(followers(model, inputs[:1])) if batch_norm else frozenset(),
        generator=torch.Generator().manual_seed(0),
    )
    ordered = OrderedNetwork(
        model, structure, ranking, batch_statistics=batch_norm, reconstruction=reconstruction, example_input=inputs[:1]
    )
    changed = 0.0
    for seed in range(3):
        plan = random_plan(structure, seed=seed)
        small = shrink(model, structure, plan, ranking)
        in_training_mode(small, on=batch_norm)
        with torch.no_grad():
            unrepaired = small(inputs)
            write_reconstruction(small, plan, structure, ranking, reconstruction)
            expected = small(inputs)
            scale = max(1.0, float(expected.abs().max()))
            assert (ordered.at(plan.kept)(inputs) - expected).abs().max() <= 1e-4 * scale, plan
            changed = max(changed, float((expected - unrepaired).abs().max()))
    assert changed > 1e-3
    with torch.no_grad():
        in_training_mode(model, on=batch_norm)
        assert (ordered.at(structure.dense.kept)(inputs) - model(inputs)).abs().max() <= 1e-4


def test_batch_statistics_are_those_of_training_mode(network: Network) -> None:
    model, inputs = network.model(), network.inputs(9).contiguous()
    inputs = inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs
    structure = network.structure()
    ranking = random_ranking(structure, seed=0)
    ordered = OrderedNetwork(model, structure, ranking, batch_statistics=True, example_input=inputs[:1])
    for seed in range(3):
        plan = random_plan(structure, seed=seed)
        small = shrink(model, structure, plan, ranking)
        in_training_mode(small, on=True)
        with torch.no_grad():
            assert (ordered.at(plan.kept)(inputs) - small(inputs)).abs().max() <= 1e-4, plan


def in_training_mode(network: torch.nn.Module, *, on: bool) -> None:
    """BatchNorm alone."""
    for layer in network.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            layer.train(on)


def test_repaired_weights_are_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    network = PRUNABLE["residual"]
    model, inputs, structure = network.model(), network.inputs(4), network.structure()
    ranking = random_ranking(structure, seed=0)
    solved = reconstruct(
        model, structure, ranking, network.role(), settings=LeastSquares(ridge=1e-3, rows=400),
        centred=frozenset(), generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    plans = [random_plan(structure, seed=seed) for seed in range(12)]
    outputs = []
    for limit in (2**28, 3000, 0):
        monkeypatch.setattr(ordered_room, "REPAIRED_BYTES", limit)
        ordered = OrderedNetwork(model, structure, ranking, reconstruction=solved)
        with torch.no_grad():
            outputs.append(torch.stack([ordered.at(plan.kept)(inputs) for plan in [*plans, *plans]]))
        held = [sum(tensor.nbytes for tensor in tensors.values()) for tensors in ordered.repaired._latest.values()]
        assert sum(held) == ordered.repaired.held_bytes
        assert sum(held) <= limit or len(held) == 1, "of all layers together"
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("batch_statistics", [True, False])
def test_low_precision_is_close(network: Network, batch_statistics: bool) -> None:
    model, inputs = network.model(), network.inputs(9)
    structure = network.structure()
    exact, rough = (
        OrderedNetwork(
            model, structure, random_ranking(structure, seed=0), dtype=dtype, batch_statistics=batch_statistics,
            example_input=inputs[:1],
        )
        for dtype in (torch.float32, torch.bfloat16)
    )  # fmt: skip
    kept = random_plan(structure, seed=1).kept
    with torch.no_grad():
        expected, found = exact.at(kept)(inputs), rough.at(kept)(inputs.bfloat16())
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().max() <= 0.08 * max(1.0, float(expected.abs().max()))


def test_channels_are_views_and_the_dense_network_is_left_alone() -> None:
    network = PRUNABLE["residual"]
    model = network.model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    structure = network.structure()
    ordered = OrderedNetwork(model, structure, random_ranking(structure, seed=0))
    whole = {
        name: layer.weight
        for name, layer in ordered.at(structure.dense.kept).named_modules()
        if "weight" in vars(layer)
    }
    sliced = ordered.at(random_plan(structure, seed=1).kept)
    for name, weight in whole.items():
        assert sliced.get_submodule(name).weight.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_plan_leaves_nothing_behind_for_the_next() -> None:
    network = PRUNABLE["digits_net"]
    model, inputs, structure = network.model(), network.inputs(2), network.structure()
    ordered = OrderedNetwork(model, structure, random_ranking(structure, seed=0))
    plan = random_plan(structure, seed=0)
    with torch.no_grad():
        first = ordered.at(plan.kept)(inputs)
        ordered.at(random_plan(structure, seed=1).kept)(inputs)
        assert torch.equal(ordered.at(plan.kept)(inputs), first)
