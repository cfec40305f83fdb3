"""What is made of example inputs, and of networks that come wrapped, computed or pruned."""

import copy
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

from autoprune.structure.edit import masked, shrink
from autoprune.structure.graph import find_structure
from autoprune.structure.sliced_attention import SlicedAttention, slice_attention
from autoprune.task.unwrapped import unwrapped


class Branching(nn.Module):
    """What the input holds decides which layer reads the first one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bright, self.dark, self.last = (
            nn.Conv2d(1, 10, 3), nn.Conv2d(10, 6, 3), nn.Conv2d(10, 6, 3), nn.Conv2d(6, 7, 1),
        )  # fmt: skip
        self.out = nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.stem(x))
        h = self.bright(h) if x.mean() > 0 else self.dark(h)
        return self.out(F.relu(self.last(F.relu(h))).mean((2, 3)))


def test_a_branch_that_data_choose_is_cut_only_where_an_example_runs_it() -> None:
    network, bright, dark = Branching(), torch.rand(1, 1, 9, 9), -torch.rand(1, 1, 9, 9)
    one = find_structure(network, bright)
    assert one.names == ("last",)
    assert one.unprunable["dark"].startswith("the example input does not run it")
    assert "dark" in one.unprunable["stem"]
    assert "Task.example_inputs" in one.unprunable["bright"]
    both = find_structure(network, bright, example_inputs=[dark])
    assert both.names == ("stem", "bright", "last")
    assert {m.layer for m in both.groups[1].members} == {"bright", "dark", "last"}
    small = shrink(network, both, both.plan(both.floor), {g.name: torch.arange(g.units) for g in both.groups})
    assert small(bright).shape == small(dark).shape == (1, 2)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.table, self.out = nn.Conv2d(1, 8, 3), nn.Linear(3, 6), nn.Linear(14, 2)

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        return self.out(torch.cat([F.relu(self.image(image)).mean((2, 3)), F.relu(self.table(table))], 1))


def test_tuples_mappings_and_a_forward_of_ones_own_are_the_same_network() -> None:
    network, image, table = TwoInputs(), torch.rand(1, 1, 8, 8), torch.rand(1, 3)
    packed = torch.cat([image.flatten(1), table], 1)

    def unpacked(network: nn.Module, x: Tensor) -> Tensor:
        return network(x[:, :64].view(-1, 1, 8, 8), x[:, 64:])  # type: ignore[no-any-return]

    found = [
        find_structure(network, (image, table)),
        find_structure(network, {"image": image, "table": table}),
        find_structure(network, packed, forward=unpacked),
    ]
    assert [structure.names for structure in found] == [("image", "table")] * 3
    assert [layer.positions for structure in found for layer in structure.layers] == [36, 1, 1] * 3


def conv_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(3, 8, 3), nn.ReLU(), nn.Conv1d(8, 10, 3), nn.ReLU(), nn.Conv1d(10, 6, 3), nn.ReLU(),
                         nn.Flatten(), nn.Linear(6 * 6, 2)).eval()  # fmt: skip


def masked_by_prune(layer: nn.Module) -> nn.Module:
    return prune.l1_unstructured(layer, "weight", 0.5)  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated")
@pytest.mark.parametrize(
    ("compute", "end"),
    [
        (nn.utils.parametrizations.weight_norm, "remove_parametrizations"),
        (nn.utils.weight_norm, "remove_weight_norm"),
        (nn.utils.parametrizations.spectral_norm, "remove_parametrizations"),
        (nn.utils.spectral_norm, "remove_spectral_norm"),
        (masked_by_prune, "prune.remove"),
    ],
)
def test_a_computed_weight_leaves_its_layer_whole_and_names_the_line_that_ends_it(
    compute: Callable[[nn.Module], nn.Module], end: str
) -> None:
    network, example = conv_net(), torch.randn(1, 3, 12)
    network[0] = compute(network[0])
    structure = find_structure(network.eval(), example)
    assert structure.names == ("2", "4")
    assert end in structure.unprunable["0"]
    line = structure.unprunable["0"].partition("weight first: ")[2]
    exec(line, {"torch": torch, "model": network, "hasattr": hasattr, "getattr": getattr, "list": list})
    assert find_structure(network, example).names == ("0", "2", "4")


def test_wrapped_networks_are_taken_out() -> None:
    network = conv_net()
    assert unwrapped(nn.DataParallel(network)) is network
    assert unwrapped(torch.compile(network, backend="eager")) is network  # type: ignore[arg-type]
    assert find_structure(nn.DataParallel(network), torch.randn(1, 3, 12)).names == ("module.0", "module.2", "module.4")


@pytest.mark.filterwarnings("ignore:.torch.jit.trace")
def test_scripted_and_compiled_networks_get_a_sentence() -> None:
    network, example = conv_net(), torch.randn(1, 3, 12)
    with pytest.raises(ValueError, match=r"TorchScript.*nn\.Module"):
        find_structure(torch.jit.trace(network, example), example)
    with pytest.raises(ValueError, match=r"is compiled .*model\._orig_mod"):
        find_structure(torch.compile(network, backend="eager"), example)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("trained", [False, True])
def test_quantized_networks_get_a_sentence(trained: bool) -> None:
    network: nn.Module = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))
    if trained:
        network.qconfig = torch.ao.quantization.get_default_qat_qconfig("fbgemm")  # type: ignore[assignment]
        network = torch.ao.quantization.prepare_qat(network.train())
    else:
        network = torch.ao.quantization.quantize_dynamic(network, {nn.Linear})
    with pytest.raises(ValueError, match=r"is quantized, or prepared for it .* quantize the pruned one"):
        find_structure(network, torch.randn(1, 6))


def test_a_network_without_units_says_so() -> None:
    with pytest.raises(ValueError, match="none of its layers writes units"):
        find_structure(nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Softmax(1)), torch.rand(1, 3, 4, 4))


def test_time_that_is_up_is_said() -> None:
    with pytest.raises(ValueError, match=r"0 of 4 layers.*structure\.time_limit_s"):
        find_structure(conv_net(), torch.randn(1, 3, 12), time_limit_s=0)


def test_progress_is_told() -> None:
    seen: list[tuple[int, int]] = []
    find_structure(conv_net(), torch.randn(1, 3, 12), progress=lambda done, of: seen.append((done, of)))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_images_are_looked_at_small_and_counted_as_they_are() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.AdaptiveAvgPool2d(1))
    sides: list[int] = []
    network[0].register_forward_hook(lambda _, inputs, __: sides.append(inputs[0].shape[-1]))
    structure = find_structure(network, torch.randn(1, 3, 128, 128))
    assert structure.layers[0].positions == 128 * 128
    assert sides[0] == 128
    assert set(sides[1:]) == {64}


class Attends(nn.Module):
    def __init__(self, **settings: bool | int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(24, 4, **settings)  # type: ignore[arg-type]
        self.up, self.out = nn.Linear(24, 30), nn.Linear(30, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.up(x + self.attention(x, x, x, need_weights=False)[0])))


def test_a_pruned_network_can_be_pruned_again() -> None:
    torch.manual_seed(0)
    network, example = nn.Sequential(nn.Linear(5, 24), Attends(batch_first=True)).eval(), torch.randn(1, 6, 5)
    for heads in (4, 3):
        structure = find_structure(network, example)
        units = dict(zip(structure.names, structure.units.tolist(), strict=True))
        assert units["1.attention"] == heads
        plan = structure.plan([units - 1 for units in structure.units])  # type: ignore[arg-type]
        ranking = {g.name: torch.randperm(g.units) for g in structure.groups}
        with torch.no_grad(), masked(network, structure, plan, ranking):
            expected = network(example)
        network = shrink(network, structure, plan, ranking).eval()
        assert torch.allclose(network(example), expected, atol=1e-5)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("masks", ["none", "causal", "padding", "both", "for each head"])
def test_a_sliced_attention_is_pytorchs_own_before_anything_is_taken(
    batch_first: bool, need_weights: bool, masks: str
) -> None:
    torch.manual_seed(0)
    dense = nn.MultiheadAttention(24, 4, batch_first=batch_first, kdim=10, vdim=12).eval()
    holder = nn.ModuleDict({"attention": copy.deepcopy(dense)})
    assert slice_attention(holder, "attention") == [(holder, "attention")]
    sliced = holder["attention"]
    assert isinstance(sliced, SlicedAttention)
    query, key, value = torch.randn(2, 5, 24), torch.randn(2, 7, 10), torch.randn(2, 7, 12)
    if not batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    settings: dict[str, Tensor | bool] = {"need_weights": need_weights}
    if masks in ("causal", "both"):
        settings["attn_mask"] = torch.ones(5, 7, dtype=torch.bool).triu(3)
    if masks == "for each head":
        settings["attn_mask"] = torch.randn(8, 5, 7)
    if masks in ("padding", "both"):
        settings["key_padding_mask"] = torch.tensor([[False] * 7, [False] * 4 + [True] * 3])
    with torch.no_grad():
        expected, answer = dense(query, key, value, **settings), sliced(query, key, value, **settings)
    assert torch.allclose(answer[0], expected[0], atol=1e-6)
    assert (answer[1] is None) == (expected[1] is None)
    if expected[1] is not None:
        assert torch.allclose(answer[1], expected[1], atol=1e-6)


class Halves(nn.Module):
    """Two halves of a layer's channels, which a chunk hands to layers that need as many each."""

    def __init__(self, channels: int, halves: int) -> None:
        super().__init__()
        self.first, self.halves = nn.Conv2d(3, channels * halves, 1), halves
        self.each = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(halves))
        self.last = nn.Linear(channels * halves, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.first(x).relu().chunk(self.halves, 1)
        outputs = [layer(part).relu() for layer, part in zip(self.each, parts, strict=True)]
        return self.last(torch.cat(outputs, 1).mean((2, 3)))


@pytest.mark.parametrize(("channels", "halves"), [(8, 2), (12, 2), (8, 3), (6, 4)])
@pytest.mark.parametrize("round_to", [1, 2, 4, "auto"])
def test_parts_of_a_chunk_are_one_group_however_few_levels_there_are(
    channels: int, halves: int, round_to: int | Literal["auto"]
) -> None:
    structure = find_structure(Halves(channels, halves), torch.randn(1, 3, 8, 8), round_to=round_to)
    cut = [group for group in structure.groups if group.members[0].layer == "first"]
    assert [group.units for group in cut] == [channels]
    assert cut[0].members[0].positions.shape == (channels, halves)
