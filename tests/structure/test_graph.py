import copy
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.structure.components import OUTPUT
from autoprune.structure.edit import masked, shrink
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Structure
from autoprune.task import networks
from tests.models import (
    CLASSES,
    PRUNABLE,
    Network,
    SoftmaxOverChannels,
    TwoOutputs,
    Untraceable,
    group_norm,
    random_ranking,
)

FASHION = (1, 28, 28)


def members(structure: Structure) -> dict[str, set[str]]:
    """Group → its layers as `axis:layer`."""
    return {g.name: {f"{m.axis}:{m.layer}" for m in g.members} for g in structure.groups}


def shape(structure: Structure) -> dict[str, list[tuple[str, str, list[list[int]]]]]:
    return {g.name: [(m.layer, m.axis, m.positions.tolist()) for m in g.members] for g in structure.groups}


def test_residual_streams_are_one_group() -> None:
    structure = find_structure(PRUNABLE["residual"].model(), PRUNABLE["residual"].inputs())
    assert members(structure) == {
        "conv1": {"out:conv1", "out:bn1", "in:conv2", "out:conv3", "out:bn3", "in:fc"},
        "conv2": {"out:conv2", "out:bn2", "in:conv3"},
    }
    assert structure.units.tolist() == [8, 6]
    assert structure.unprunable == {"fc": OUTPUT}


def test_concatenated_groups_know_their_place() -> None:
    structure = find_structure(PRUNABLE["dense"].model(), PRUNABLE["dense"].inputs())
    where = {group.name: {m.layer: m.positions.flatten().tolist() for m in group.members} for group in structure.groups}
    assert where["stem"]["bn3"] == [0, 1, 2, 3, 4, 5]
    assert where["conv1"]["bn2"] == where["conv1"]["fc"] == [6, 7, 8, 9]
    assert where["conv2"]["fc"] == [10, 11, 12, 13]


def test_depthwise_convolutions_belong_to_the_group_before_them() -> None:
    structure = find_structure(PRUNABLE["separable"].model(), PRUNABLE["separable"].inputs())
    assert members(structure)["expand"] == {"out:expand", "out:bn1", "out:depthwise", "out:bn2", "in:project"}


def test_grouped_convolutions_lose_equally_much_of_each_group() -> None:
    structure = find_structure(PRUNABLE["grouped"].model(), PRUNABLE["grouped"].inputs())
    assert dict(zip(structure.names, structure.units.tolist(), strict=True)) == {"stem": 8, "conv1": 3, "conv2": 4}
    positions = {m.layer: m.positions.tolist() for m in structure.groups[1].members}
    assert positions["conv1"] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert positions["conv2"] == [[0], [1], [2]]  # counted within one of its groups


def test_flattening_gives_a_unit_all_its_positions() -> None:
    structure = find_structure(PRUNABLE["flattened"].model(), PRUNABLE["flattened"].inputs())
    linear = next(m for m in structure.groups[0].members if m.axis == "in")
    assert linear.positions.tolist() == [list(range(9 * unit, 9 * unit + 9)) for unit in range(6)]
    assert [group.granularity for group in structure.groups] == ["channel", "neuron"]


def test_resnet20_has_twelve_groups() -> None:
    structure = find_structure(networks.resnet20(), torch.zeros(1, *FASHION))
    streams = ["conv1", "layer2.0.conv2", "layer3.0.conv2"]
    inner = [f"layer{stage}.{block}.conv1" for stage in (1, 2, 3) for block in (0, 1, 2)]
    assert set(structure.names) == {*streams, *inner}
    assert len(structure.names) == 12
    units = dict(zip(structure.names, structure.units.tolist(), strict=True))
    assert [units[name] for name in streams] == [16, 32, 64]
    assert [units[name] for name in inner] == [16] * 3 + [32] * 3 + [64] * 3
    assert members(structure)["layer2.0.conv2"] == {
        *(f"out:layer2.{block}.{layer}" for block in (0, 1, 2) for layer in ("conv2", "bn2")),
        "out:layer2.0.shortcut.0", "out:layer2.0.shortcut.1",
        "in:layer2.1.conv1", "in:layer2.2.conv1", "in:layer3.0.conv1", "in:layer3.0.shortcut.0",
    }  # fmt: skip
    assert structure.unprunable == {"fc": OUTPUT}


def test_plain20_has_nineteen_groups_of_one_convolution() -> None:
    structure = find_structure(networks.plain20(), torch.zeros(1, *FASHION))
    convolutions = [f"layer{s}.{b}.conv{c}" for s in (1, 2, 3) for b in (0, 1, 2) for c in (1, 2)]
    assert structure.names == ("conv1", *convolutions)  # in order of execution
    assert all(len(group) == 3 for group in members(structure).values())
    assert structure.unprunable == {"fc": OUTPUT}


def test_mobilenet_v1_has_fourteen_groups() -> None:
    structure = find_structure(networks.mobilenet_v1(), torch.zeros(1, *FASHION))
    assert structure.names == ("conv1", *(f"blocks.{i}.pointwise" for i in range(13)))
    assert structure.units.tolist() == [16, 32, 64, 64, 128, 128] + [256] * 6 + [512] * 2
    assert members(structure)["conv1"] == {
        "out:conv1", "out:bn1", "out:blocks.0.depthwise", "out:blocks.0.bn1", "in:blocks.0.pointwise",
    }  # fmt: skip


def test_the_judged_output_and_those_beside_it_stay_whole() -> None:
    network = Network(TwoOutputs)
    structure = find_structure(network.model(), network.inputs())
    assert structure.names == ("conv",)
    assert structure.unprunable == {"features": OUTPUT, "logits": OUTPUT}


@pytest.mark.parametrize("tail", [[nn.BatchNorm2d(CLASSES)], [nn.ReLU()], [nn.Flatten()], [nn.Softmax(1)]])
def test_the_output_layer_stays_whole_whatever_follows_it(tail: list[nn.Module]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, CLASSES, 3), *tail).eval()
    structure = find_structure(model, torch.zeros(1, 3, 8, 8))
    assert structure.names == ("0",)
    assert structure.unprunable == {"2": OUTPUT}


def test_kept_layers_stay_whole_and_say_why() -> None:
    network = PRUNABLE["residual"]
    structure = find_structure(network.model(), network.inputs(), keep=frozenset({"conv3"}))
    assert structure.names == ("conv2",)
    assert structure.unprunable["conv1"] == "task.keep names conv3"  # its stream's first layer


def test_keeping_a_module_keeps_the_layers_in_it() -> None:
    structure = find_structure(networks.resnet20(), torch.zeros(1, *FASHION), keep=frozenset({"layer1.0", "layer3"}))
    assert {"conv1", "layer1.0.conv1"} <= set(structure.unprunable)  # layer1.0.conv2 writes the first stream
    assert not any(name.startswith("layer3") for name in structure.names)
    assert {"layer1.1.conv1", "layer2.0.conv1"} <= set(structure.names)


@pytest.mark.parametrize("name", ["conv4", "conv", "relu"])
def test_keeping_what_is_no_layer_is_an_error(name: str) -> None:
    network = PRUNABLE["residual"]
    with pytest.raises(ValueError, match=rf"\['{name}'\].*conv1"):
        find_structure(network.model(), network.inputs(), keep=frozenset({name}))


@pytest.mark.parametrize(
    ("round_to", "min_units", "levels"),
    [
        (1, 1, [range(1, 9), range(1, 11)]),
        (4, 1, [(4, 8), (4, 8, 10)]),
        (3, 1, [(3, 6, 8), (3, 6, 9, 10)]),
        (1, 7, [(7, 8), (7, 8, 9, 10)]),
        (3, 4, [(6, 8), (6, 9, 10)]),
    ],
)
def test_levels_respect_multiples_and_minimum_units(
    round_to: int, min_units: int, levels: list[tuple[int, ...]]
) -> None:
    network = PRUNABLE["plain"]
    structure = find_structure(network.model(), network.inputs(), round_to=round_to, min_units=min_units)
    assert [group.levels for group in structure.groups] == [tuple(level) for level in levels]
    assert structure.floor.tolist() == [level[0] for level in levels]


def test_groups_left_without_a_choice_say_why() -> None:
    network = PRUNABLE["plain"]
    structure = find_structure(network.model(), network.inputs(), min_units=9)
    assert structure.names == ("4",)
    assert structure.unprunable["0"] == "min_units=9 and round_to=1 leave no choice for its 8 units"
    with pytest.raises(ValueError, match="min_units=10"):
        find_structure(network.model(), network.inputs(), min_units=10)


@pytest.mark.parametrize(("round_to", "min_units"), [(0, 1), (1, 0), (-4, 1)])
def test_levels_need_positive_settings(round_to: int, min_units: int) -> None:
    network = PRUNABLE["plain"]
    with pytest.raises(ValueError, match=rf"at least 1.*got {min(round_to, min_units)}"):
        find_structure(network.model(), network.inputs(), round_to=round_to, min_units=min_units)


def test_normalising_over_units_makes_them_unprunable() -> None:
    layer_norm = PRUNABLE["layer_norm"]
    reason = find_structure(layer_norm.model(), layer_norm.inputs()).unprunable["0"]
    assert reason.startswith("its units are normalised together by 1, a LayerNorm")
    assert "structure.inexact=true" in reason


def test_groups_of_a_group_norm_go_whole() -> None:
    network = Network(group_norm)
    first = find_structure(network.model(), network.inputs()).groups[0]
    assert first.members[0].positions.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [(number.module, number.name, number.per_unit) for number in first.attributes] == [("1", "num_groups", 1)]
    assert first.exact


def test_a_softmax_over_channels_is_found_by_looking() -> None:
    network = Network(SoftmaxOverChannels)
    structure = find_structure(network.model(), network.inputs())
    assert structure.names == ("conv2",)
    assert structure.unprunable["conv1"].startswith("each of its outputs reaches all that conv2 reads")


class SharedKey(nn.Module):
    """Queries of several heads, one key and one value for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.stem, self.q, self.kv = 6, nn.Linear(5, 24), nn.Linear(24, 24), nn.Linear(24, 8)
        self.o, self.out = nn.Linear(24, 20), nn.Linear(20, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        q, (k, v) = self.q(x).unflatten(-1, (self.heads, -1)), self.kv(x).chunk(2, -1)
        scores = torch.einsum("bihd,bjd->bhij", q, k).softmax(-1)
        return self.out(F.relu(self.o(torch.einsum("bhij,bjd->bihd", scores, v).flatten(2))))  # type: ignore[no-any-return]


def test_heads_go_beside_a_key_that_they_share() -> None:
    structure = find_structure(SharedKey().eval(), torch.rand(1, 7, 5))
    heads = next(group for group in structure.groups if group.granularity == "head")
    assert [(m.layer, m.axis, m.positions.shape) for m in heads.members] == [("q", "out", (6, 4)), ("o", "in", (6, 4))]
    assert structure.unprunable["kv"].endswith("which can go without it")
    assert {"stem", "o"} < set(structure.names)


class Scaled(nn.Module):
    """A parameter of the network itself has one entry per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, CLASSES)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv2(F.relu(self.conv1(x) * self.scale)).mean((2, 3)))


class Checked(nn.Module):
    """The user's own check knows how wide the first layer is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        assert str(x.shape[1]) == "8", "eight channels are expected"
        return self.fc(F.relu(self.conv2(x)).mean((2, 3)))


class ConcatenatedThenGrouped(nn.Module):
    """Two layers fill different convolution groups of a third: neither can lose a channel alone."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1)
        self.grouped, self.last, self.fc = nn.Conv2d(12, 8, 3, groups=4), nn.Conv2d(8, 6, 1), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.grouped(F.relu(torch.cat([self.left(x), self.right(x)], 1))))
        return self.fc(F.relu(self.last(x)).mean((2, 3)))


class DepthwiseFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.conv, self.fc = nn.Conv2d(3, 3, 3, groups=3), nn.Conv2d(3, 8, 1), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv(self.depthwise(x))).mean((2, 3)))


class ComputedFilters(nn.Module):
    """Filters are functions of parameters of the module's own, as in SincNet (arXiv 1808.00158)."""

    def __init__(self) -> None:
        super().__init__()
        self.bands, self.conv, self.fc = Bands(), nn.Conv2d(6, 8, 3), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv(self.bands(x))).mean((2, 3)))


class Bands(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.rand(6, 1))

    def forward(self, x: Tensor) -> Tensor:
        filters = torch.sin(self.frequency * torch.arange(3.0)).view(6, 1, 1, 3)
        return F.conv2d(x, filters.expand(6, 3, 1, 3))


@pytest.mark.parametrize(
    ("build", "unprunable", "reason"),
    [
        (ComputedFilters, "bands.frequency", "functions read it in a way in which no units are seen"),
        (Checked, "conv1", "the network does not run without its units (AssertionError: eight channels are expected"),
        (DepthwiseFirst, "depthwise", "its channels are the network's inputs"),
    ],
)
def test_what_cannot_be_pruned_says_why(build: type[nn.Module], unprunable: str, reason: str) -> None:
    network = Network(build)
    structure = find_structure(network.model(), network.inputs())
    assert structure.unprunable[unprunable].startswith(reason)
    assert structure.names  # and the rest can


@pytest.mark.parametrize("build", [ConcatenatedThenGrouped, Checked, Scaled])
def test_the_groups_that_are_found_can_go_together(build: type[nn.Module]) -> None:
    network = Network(build)
    model = network.model()
    structure = find_structure(model, network.inputs())
    ranking, floor = random_ranking(structure, seed=0), structure.plan(structure.floor)
    with masked(model, structure, floor, ranking):
        expected = model(network.inputs(2))
    assert torch.allclose(shrink(model, structure, floor, ranking)(network.inputs(2)), expected, atol=1e-5)


def test_a_parameter_of_no_layer_goes_with_the_channels_that_it_scales() -> None:
    network = Network(Scaled)
    structure = find_structure(network.model(), network.inputs())
    assert members(structure)["conv1"] == {"out:conv1", "scale/0:", "in:conv2"}


def test_layers_that_fill_different_convolution_groups_lose_channels_together() -> None:
    network = Network(ConcatenatedThenGrouped)
    structure = find_structure(network.model(), network.inputs())
    assert members(structure)["left"] == {"out:left", "out:right", "in:grouped"}


def test_a_network_that_cannot_be_traced_is_an_error() -> None:
    network = Network(Untraceable)
    with pytest.raises(ValueError, match=r"nothing in this network can be pruned: .*nothing is seen to read its"):
        find_structure(network.model(), network.inputs())


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).detach()


def test_an_output_is_known_for_one_where_it_is_detached() -> None:
    network = Network(Detached)
    with pytest.raises(ValueError, match=r"nothing in this network can be pruned: .*the network's output"):
        find_structure(network.model(), network.inputs())


class Listed(nn.Module):
    """Its outputs are in an object that nobody can look into."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> object:
        return type("Outputs", (), {"logits": self.conv(x)})()


def test_outputs_without_tensors_are_an_error() -> None:
    network = Network(Listed)
    with pytest.raises(TypeError, match="the model returns Outputs; a tensor, or a container of one, is needed"):
        find_structure(network.model(), network.inputs())


def test_an_example_input_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match=re.escape("does not run on its example input of shape (1, 4, 8, 8)")):
        find_structure(PRUNABLE["plain"].model(), torch.zeros(1, 4, 8, 8))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_broken_weights_are_an_error(value: float) -> None:
    model = PRUNABLE["plain"].model()
    model[0].weight.data[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match="outputs for the example input hold NaN or infinity"):
        find_structure(model, PRUNABLE["plain"].inputs())


def test_looking_leaves_the_network_alone(network: Network) -> None:
    model = network.model().train()
    next(model.parameters()).requires_grad_(False)
    modes = [module.training for module in model.modules()]
    state, flags = copy.deepcopy(model.state_dict()), [p.requires_grad for p in model.parameters()]
    find_structure(model, network.inputs())
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_structure_does_not_depend_on_the_weights_or_the_batch(network: Network) -> None:
    once = find_structure(network.model(seed=0), network.inputs())
    again = find_structure(network.model(seed=7), network.inputs(4))
    assert shape(once) == shape(again)
    assert once.layers == again.layers


def test_every_axis_entry_belongs_to_one_unit_at_most(network: Network) -> None:
    structure = network.structure()
    sizes = {(layer.name, "out"): layer.outputs for layer in structure.layers}
    sizes |= {(layer.name, "in"): layer.inputs for layer in structure.layers}
    claimed: set[tuple[str, str, int]] = set()
    for group in structure.groups:
        for member in group.members:
            assert len(member.positions) == group.units
            entries = {(member.layer, member.axis, int(entry)) for entry in member.positions.flatten()}
            assert len(entries) == member.positions.size
            assert not entries & claimed
            assert all(0 <= entry < sizes[member.layer, member.axis] for *_, entry in entries)
            claimed |= entries
