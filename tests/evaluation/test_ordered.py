import pytest
import torch

from autoprune.evaluation.ordered import OrderedNetwork
from autoprune.structure.edit import masked, shrink
from autoprune.structure.graph import find_structure
from autoprune.task import networks
from tests.models import Network, random_plan, random_ranking

SHIPPED = {
    "resnet20": Network(networks.resnet20, (1, 28, 28)),
    "plain20": Network(networks.plain20, (1, 28, 28)),
    "mobilenet_v1": Network(networks.mobilenet_v1, (1, 28, 28)),
}


def ordered_equals_edited(network: Network, *, plans: int) -> None:
    model, inputs = network.model(), network.inputs(3)
    structure = find_structure(model, inputs[:1])
    ranking = random_ranking(structure, seed=0)
    ordered = OrderedNetwork(model, structure, ranking)
    with torch.no_grad():
        for seed in range(plans):
            plan = random_plan(structure, seed=seed)
            sliced = ordered.at(plan)(inputs)
            assert (sliced - shrink(model, structure, plan, ranking)(inputs)).abs().max() <= 1e-4, plan
            with masked(model, structure, plan, ranking):
                assert (sliced - model(inputs)).abs().max() <= 1e-4, plan
        assert (ordered.at(structure.dense)(inputs) - model(inputs)).abs().max() <= 1e-4


def test_slices_equal_the_shrunk_and_the_masked_network(network: Network) -> None:
    ordered_equals_edited(network, plans=8)


@pytest.mark.parametrize("name", SHIPPED)
def test_slices_of_the_shipped_networks(name: str) -> None:
    ordered_equals_edited(SHIPPED[name], plans=3)


def test_channels_are_views_and_the_dense_network_is_left_alone() -> None:
    network = SHIPPED["resnet20"]
    model = network.model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    structure = find_structure(model, network.inputs())
    ordered = OrderedNetwork(model, structure, random_ranking(structure, seed=0))
    whole = {
        name: layer.weight for name, layer in ordered.at(structure.dense).named_modules() if "weight" in vars(layer)
    }
    sliced = ordered.at(random_plan(structure, seed=1))
    for name, weight in whole.items():
        assert sliced.get_submodule(name).weight.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_plan_leaves_nothing_behind_for_the_next() -> None:
    network = SHIPPED["mobilenet_v1"]
    model, inputs = network.model(), network.inputs(2)
    structure = find_structure(model, inputs[:1])
    ordered = OrderedNetwork(model, structure, random_ranking(structure, seed=0))
    plan = random_plan(structure, seed=0)
    with torch.no_grad():
        first = ordered.at(plan)(inputs)
        ordered.at(random_plan(structure, seed=1))(inputs)
        assert torch.equal(ordered.at(plan)(inputs), first)
