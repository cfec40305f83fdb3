import copy

import pytest
import torch
import torch_pruning
from torch import Tensor, nn

from autoprune.structure.edit import evaluating, masked, shrink
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Structure
from autoprune.task import networks
from tests.models import CLASSES, PRUNABLE, Network, random_plan, random_ranking

SHIPPED = {
    "resnet20": Network(networks.resnet20, (1, 28, 28)),
    "plain20": Network(networks.plain20, (1, 28, 28)),
    "mobilenet_v1": Network(networks.mobilenet_v1, (1, 28, 28)),
}


@pytest.mark.parametrize("name", [*PRUNABLE, *SHIPPED])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_masked_equals_shrunk(name: str, dtype: torch.dtype, tolerance: float) -> None:
    network = {**PRUNABLE, **SHIPPED}[name]
    model, inputs = network.model().to(dtype), network.inputs(3).to(dtype)
    structure = network.structure()
    for seed in range(2 if name in SHIPPED else 6):
        plan, ranking = random_plan(structure, seed=seed), random_ranking(structure, seed=seed)
        with torch.no_grad():
            with masked(model, structure, plan, ranking):
                expected = model(inputs)
            outputs = shrink(model, structure, plan, ranking)(inputs)
        assert (outputs - expected).abs().max() <= tolerance, plan


def test_the_dense_plan_changes_nothing(network: Network) -> None:
    model, inputs = network.model(), network.inputs(2)
    structure = network.structure()
    ranking = random_ranking(structure, seed=0)
    dense = model(inputs)
    assert torch.equal(shrink(model, structure, structure.dense, ranking)(inputs), dense)
    with masked(model, structure, structure.dense, ranking):
        assert torch.equal(model(inputs), dense)


def test_the_best_units_are_those_that_stay() -> None:
    network = PRUNABLE["residual"]
    model = network.model()
    structure = network.structure()
    ranking = random_ranking(structure, seed=3)
    small = shrink(model, structure, structure.plan([3, 2]), ranking)
    stays, inner = ranking["conv1"][:3].sort().values, ranking["conv2"][:2].sort().values
    assert torch.equal(small.conv1.weight, model.conv1.weight[stays])
    assert torch.equal(small.bn3.running_var, model.bn3.running_var[stays])
    assert torch.equal(small.conv2.weight, model.conv2.weight[inner][:, stays])
    assert torch.equal(small.conv3.bias, model.conv3.bias[stays])
    assert torch.equal(small.fc.weight, model.fc.weight[:, stays])
    assert torch.equal(small.fc.bias, model.fc.bias)


def test_removed_units_are_silent_where_they_are_read(network: Network) -> None:
    """A mask that forgot a BatchNorm's shift, say, would let a constant through."""
    model = network.model()
    structure = network.structure()
    heard: dict[str, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, arguments, name=name: heard.update({name: arguments[0]}))
        for name, layer in model.named_modules()
    ]
    ranking, floor = random_ranking(structure, seed=0), structure.plan(structure.floor)
    with masked(model, structure, floor, ranking):
        model(network.inputs(2))
    for hook in hooks:
        hook.remove()
    for group, kept in zip(structure.groups, floor.kept, strict=True):
        for member in (m for m in group.members if m.axis == "in"):
            layer, values = model.get_submodule(member.layer), heard[member.layer]
            values = values.movedim(-1 if isinstance(layer, nn.Linear) else 1, 0)
            values = values.unflatten(0, (getattr(layer, "groups", 1), -1)).movedim(1, 0)
            removed = member.positions[ranking[group.name][kept:]]
            assert (values[removed] == 0).all(), (group.name, member.layer)


def test_a_mask_leaves_no_trace(network: Network) -> None:
    model = network.model()
    structure = network.structure()
    before = copy.deepcopy(model.state_dict())
    floor, ranking = structure.plan(structure.floor), random_ranking(structure, seed=0)
    with masked(model, structure, floor, ranking):
        assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert_same(model.state_dict(), before)
    with pytest.raises(KeyboardInterrupt), masked(model, structure, floor, ranking):
        raise KeyboardInterrupt
    assert_same(model.state_dict(), before)
    with masked(model, structure, floor, ranking), masked(model, structure, floor, random_ranking(structure, seed=1)):
        pass
    assert_same(model.state_dict(), before)


def test_a_mask_that_fails_half_way_leaves_no_trace() -> None:
    network = PRUNABLE["residual"]
    model = network.model()
    structure = network.structure()
    before = copy.deepcopy(model.state_dict())
    model.fc = nn.Linear(1, CLASSES)  # the last layer that the mask reaches is too small for it
    with (
        pytest.raises(IndexError),
        masked(model, structure, structure.plan(structure.floor), random_ranking(structure, seed=0)),
    ):
        pass
    after = {key: value for key, value in model.state_dict().items() if not key.startswith("fc")}
    assert_same(after, {key: value for key, value in before.items() if not key.startswith("fc")})


def test_shrinking_leaves_the_network_alone(network: Network) -> None:
    model = network.model()
    structure = network.structure()
    before = copy.deepcopy(model.state_dict())
    small = shrink(model, structure, structure.plan(structure.floor), random_ranking(structure, seed=0))
    assert_same(model.state_dict(), before)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()  # nothing is shared
    assert_same(model.state_dict(), before)


def test_shrunk_layers_say_how_wide_they_are(network: Network) -> None:
    """A layer made anew from a shrunk layer's own attributes has room for its weights."""
    model = network.model()
    structure = network.structure()
    small = shrink(model, structure, random_plan(structure, seed=2), random_ranking(structure, seed=2))
    for layer in small.modules():
        match layer:
            case nn.Conv1d() | nn.Conv2d():
                assert layer.weight.shape[0] == layer.out_channels
                assert layer.weight.shape[1] == layer.in_channels // layer.groups
                assert layer.out_channels % layer.groups == layer.in_channels % layer.groups == 0
            case nn.Linear():
                assert layer.weight.shape == (layer.out_features, layer.in_features)
            case nn.BatchNorm1d() | nn.BatchNorm2d():
                assert layer.running_mean.shape == (layer.num_features,)
            case nn.PReLU():
                assert layer.weight.shape == (layer.num_parameters,)


def test_a_shrunk_network_trains_what_was_trained() -> None:
    network = PRUNABLE["residual"]
    model = network.model()
    model.conv1.weight.requires_grad_(False)
    structure = network.structure()
    small = shrink(model, structure, structure.plan(structure.floor), random_ranking(structure, seed=0))
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert {name: parameter.requires_grad for name, parameter in small.named_parameters()} == flags
    small.train()(network.inputs(4)).sum().backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in small.parameters())


@pytest.mark.parametrize("name", [*PRUNABLE, *SHIPPED])
def test_torch_pruning_removes_the_same_weights(name: str) -> None:
    network = {**PRUNABLE, **SHIPPED}[name]
    model, inputs = network.model(), network.inputs(2)
    structure = network.structure()
    plan, ranking = random_plan(structure, seed=5), random_ranking(structure, seed=5)
    expected = copy.deepcopy(model)
    for group, kept in zip(structure.groups, plan.kept, strict=True):
        _torch_pruning(expected, structure, group.name, ranking[group.name][kept:], inputs[:1])
    with torch.no_grad():
        outputs = shrink(model, structure, plan, ranking)(inputs)
        assert (outputs - expected(inputs)).abs().max() <= 1e-5


def test_a_plan_for_other_groups_is_refused() -> None:
    residual, plain = PRUNABLE["residual"], PRUNABLE["plain"]
    structure = residual.structure()
    other = plain.structure()
    with pytest.raises(ValueError, match=r"\['0', '4'\].*\['conv1', 'conv2'\]"):
        shrink(residual.model(), structure, other.dense, random_ranking(structure, seed=0))


def test_evaluating_gives_every_module_its_own_mode_back() -> None:
    model = PRUNABLE["plain"].model().train()
    model[1].eval()
    flags = [module.training for module in model.modules()]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == flags
    with pytest.raises(KeyboardInterrupt), evaluating(model):
        raise KeyboardInterrupt
    assert [module.training for module in model.modules()] == flags


def assert_same(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert state.keys() == expected.keys()
    for key, value in state.items():
        assert torch.equal(value, expected[key]), key


def _torch_pruning(model: nn.Module, structure: Structure, name: str, removed: Tensor, example_input: Tensor) -> None:
    group = next(group for group in structure.groups if group.name == name)
    positions = next(m.positions for m in group.members if (m.layer, m.axis) == (name, "out"))
    root = model.get_submodule(name)
    linear = isinstance(root, nn.Linear)
    prune = torch_pruning.prune_linear_out_channels if linear else torch_pruning.prune_conv_out_channels
    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=(example_input,))
    graph.get_pruning_group(root, prune, idxs=sorted(positions[removed].flatten().tolist())).prune()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_an_encoder_without_some_heads_reads_padded_inputs() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 4, 8, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).eval()
    structure = find_structure(encoder, torch.randn(2, 5, 12))
    ranking = {group.name: torch.arange(group.units) for group in structure.groups}
    plan = structure.plan(structure.units - 1)
    small, padding = shrink(encoder, structure, plan, ranking), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    x = torch.randn(2, 5, 12)
    with masked(encoder, structure, plan, ranking):
        expected = encoder(x, src_key_padding_mask=padding)
    with torch.no_grad():
        given = small(x, src_key_padding_mask=padding)
        assert torch.allclose(given[~padding], expected[~padding], atol=1e-5)
    assert encoder.use_nested_tensor, "the dense one is as it was"
