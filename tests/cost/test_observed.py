"""Costs are those of what runs: counted by torch's FlopCounterMode and by hooks of our own, dense and pruned."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from autoprune.cost import probing
from autoprune.cost.model import ProductCost, QuadraticCost
from autoprune.cost.observed import NetworkCosts
from autoprune.cost.recording import record
from autoprune.structure.edit import shrink
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Group, Layer, Member, Structure
from autoprune.structure.transformer import transformer_structure
from autoprune.task import networks
from autoprune.task.task import first_outputs, plain_forward
from tests.cost.projectors import structure_with
from tests.language_models import TINY
from tests.models import PRUNABLE, Network, random_plan, random_ranking


class Recurrent(nn.Module):
    def __init__(self, conv: int = 12, lstm: int = 7, gru: int = 10, hidden: int = 16) -> None:
        super().__init__()
        self.conv, self.hidden, self.out = (
            nn.Conv1d(6, conv, 5, padding=2),
            nn.Linear(gru, hidden),
            nn.Linear(hidden, 5),
        )
        self.lstm = nn.LSTM(conv, lstm, num_layers=2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(2 * lstm, gru, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.gru(self.lstm(F.relu(self.conv(x)).transpose(1, 2))[0])[0]
        return self.out(F.relu(self.hidden(h[:, -1])))


class Attentions(nn.Module):
    """A module of attention, a functional one, and one that is written out with einsum."""

    def __init__(self, heads: int = 3, per_head: int = 4, up: int = 20) -> None:
        super().__init__()
        self.shape, width = (heads, per_head), heads * per_head
        self.patch, self.attention = (
            nn.Conv2d(3, width, 4, stride=4),
            nn.MultiheadAttention(width, heads, batch_first=True),
        )
        self.up, self.down, self.qkv = nn.Linear(width, up), nn.Linear(up, width), nn.Linear(width, 3 * width)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        t = self.patch(x).flatten(2).transpose(1, 2)
        t = t + self.attention(t, t, t, need_weights=False)[0]
        t = t + self.down(F.gelu(self.up(t)))
        q, k, v = (part.unflatten(2, self.shape).transpose(1, 2) for part in self.qkv(t).chunk(3, dim=2))
        t = t + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        scores = torch.einsum("bthd,bshd->bhts", q.transpose(1, 2), k.transpose(1, 2)).softmax(-1)
        return self.head((t + torch.einsum("bhts,bhsd->bthd", scores, v).flatten(2)).mean(1))


class Decoder(nn.Module):
    """Transposed convolutions, a convolution whose kernel is computed, and one that is unfolded into a product."""

    def __init__(self, first: int = 8, second: int = 12, up: int = 6) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, first, 3, padding=1), nn.Conv2d(first, second, 3, stride=2, padding=1)
        self.up, self.out = (
            nn.ConvTranspose2d(second, 2 * up, 4, stride=2, padding=1, groups=2),
            nn.Conv2d(2 * up, 5, 1),
        )
        self.kernel = nn.Parameter(torch.randn(2 * up, 2 * up * 9))

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(F.relu(self.second(F.relu(self.first(x)))))
        x = F.conv2d(x, 2 * self.kernel.unflatten(1, (-1, 3, 3)), padding=1)
        unfolded = (self.kernel @ F.unfold(x, 3, padding=1)).unflatten(2, x.shape[2:])
        return self.out(F.relu(unfolded)).mean((2, 3))


class Tied(nn.Module):
    """`second` and `third` hold the same Parameter."""

    def __init__(self, first: int = 6, hidden: int = 9) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(a, first, 3, padding=1) for a in (3, first, first))
        self.third.weight = self.second.weight
        self.hidden, self.out = nn.Linear(first, hidden), nn.Linear(hidden, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.third(F.relu(self.second(F.relu(self.first(x))))))
        return self.out(F.relu(self.hidden(x.mean((2, 3)))))


def weight_normed(norm: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        norm(nn.Conv1d(6, 8, 3)), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 5),
    )  # fmt: skip


class Video(nn.Module):
    """Three axes, a frozen layer, and a buffer that is saved."""

    def __init__(self, first: int = 6, second: int = 9) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, 1, 1, 1))
        self.first, self.norm = nn.Conv3d(3, first, 3, padding=1).requires_grad_(False), nn.BatchNorm3d(first)
        self.second, self.out = nn.Conv3d(first, second, (1, 2, 3), stride=2), nn.Linear(second, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x - self.mean)))
        return self.out(F.relu(self.second(x)).mean((2, 3, 4)))


# the class, the shape of a sample, and the widths that plans decide about
NETWORKS: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...], tuple[int, ...]]] = {
    "recurrent": (Recurrent, (6, 9), (12, 7, 10, 16)),
    "attentions": (Attentions, (3, 12, 12), (3, 4, 20)),
    "decoder": (Decoder, (3, 8, 8), (8, 12, 6)),
    "tied": (Tied, (3, 8, 8), (6, 9)),
    "video": (Video, (3, 4, 6, 6), (6, 9)),
}
NORMED = {
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "old weight_norm": torch.nn.utils.weight_norm,
    "spectral_norm": nn.utils.parametrizations.spectral_norm,
}


@contextmanager
def step_by_step() -> Iterator[None]:
    """Recurrences run without the kernel that computes all their steps."""
    torch.backends.mkldnn.set_flags(_enabled=False)  # type: ignore[no-untyped-call]
    yield
    torch.backends.mkldnn.set_flags(_enabled=True)  # type: ignore[no-untyped-call]


def flop_counter(network: nn.Module, inputs: Tensor) -> int:
    """By torch, without the kernels that it knows nothing of."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.no_grad(), step_by_step(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(inputs)
    torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops()) // 2


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def built(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Structure, NetworkCosts]:
    """A network each of whose widths is a group; instead of being cut, it is built narrower."""
    build, shape, widths = NETWORKS[name]
    monkeypatch.setattr(probing, "shrink", lambda model, structure, plan, ranking: build(*plan.kept))
    first = 1 if name == "recurrent" else 2  # a convolution has two groups, and einsum leaves out axes of length 1
    structure = structure_with([tuple(range(first, n + 1, first)) if n % first == 0 else (2, n) for n in widths])
    return structure, NetworkCosts(build(), structure, torch.randn(3, *shape))


@pytest.mark.parametrize("name", NETWORKS)
def test_everything_that_runs_is_counted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    structure, costs = built(name, monkeypatch)
    build, shape, _ = NETWORKS[name]
    assert costs.uncounted == ()
    macs, params, size = costs.macs(), costs.params(), costs.parameter_bytes()
    for plan in [structure.dense, structure.plan(structure.floor), *(random_plan(structure, seed=s) for s in range(4))]:
        small, kept = build(*plan.kept).eval(), np.array(plan.kept)
        assert macs(kept) == flop_counter(small, torch.randn(1, *shape)), plan.kept
        assert params(kept) == parameters(small)
        saved = [
            t for t in {id(t): t for t in small.state_dict(keep_vars=True).values()}.values() if t.is_floating_point()
        ]
        assert size(kept) == 4 * sum(tensor.numel() for tensor in saved)


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_that_are_found_cost_what_their_shrunk_networks_do(name: str) -> None:
    """Recurrences and heads among them: a narrower attention computes in other parts than the dense one."""
    build, shape, _ = NETWORKS[name]
    network, inputs = build().eval(), torch.randn(1, *shape)
    structure = find_structure(network, inputs)
    costs = NetworkCosts(network, structure, inputs)
    assert costs.uncounted == ()
    for plan in [structure.dense, structure.plan(structure.floor), *(random_plan(structure, seed=s) for s in range(4))]:
        small = shrink(network, structure, plan, random_ranking(structure, seed=1)).eval()
        assert costs.macs()(np.array(plan.kept)) == flop_counter(small, inputs), plan.kept
        assert costs.params()(np.array(plan.kept)) == parameters(small)


def test_axes_of_shared_and_of_computed_weights() -> None:
    network, inputs = Tied().eval(), torch.randn(1, 3, 8, 8)
    costs = NetworkCosts(network, neurons(network, "hidden", "out"), inputs)
    assert costs.axis("hidden.weight", 0).tolist() == [1, 0]
    assert costs.axis("third.weight", 1).tolist() == costs.axis("second.weight", 1).tolist() == [0, 6]
    with pytest.raises(ValueError, match=r"third.bent"):
        costs.axis("third.bent", 0)


@pytest.mark.parametrize("network", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("fast", [True, False])
def test_recurrences_cost_what_their_matrices_do_at_every_step(network: type[nn.RNNBase], fast: bool) -> None:
    """By hand, in the kernel that computes all steps at once and step by step: every matrix once for each of them."""
    recurrence = nn.Sequential(network(6, 7, num_layers=2, bidirectional=True, batch_first=True))

    def forward(network: nn.Module, inputs: Tensor) -> Tensor:
        steps: Tensor = network(inputs)[0]
        return steps

    with nullcontext() if fast else step_by_step():
        products = record(recurrence, torch.randn(1, 9, 6), forward=forward).products
    matrices = sum(parameter.numel() for parameter in recurrence.parameters() if parameter.ndim == 2)
    assert sum(int(np.prod(product.sizes)) for product in products) == 9 * matrices
    assert {name for product in products for name in product.weights} >= {
        name for name, parameter in recurrence.named_parameters() if parameter.ndim == 2
    }


def neurons(network: nn.Module, first: str, second: str) -> Structure:
    """One group: the outputs of one linear layer, which another one reads."""
    layers = [network.get_submodule(name) for name in (first, second)]
    geometry = tuple(
        Layer(name, "linear", layer.out_features, layer.in_features, 1, 1, 1, True, False)  # type: ignore[arg-type]
        for name, layer in zip((first, second), layers, strict=True)
    )
    units = geometry[0].outputs
    members = tuple(
        Member(name, axis, np.arange(units)[:, None], units) for name, axis in ((first, "out"), (second, "in"))
    )  # type: ignore[arg-type]
    return Structure((Group(first, "neuron", units, members, tuple(range(1, units + 1))),), geometry)


@pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated")
@pytest.mark.parametrize("norm", NORMED)
def test_weights_that_are_computed_count_what_they_are_computed_from(norm: str) -> None:
    network, inputs = weight_normed(NORMED[norm])().eval(), torch.randn(1, 6, 8)
    with torch.no_grad():
        network(inputs)  # the old way computes the weight here
    structure = neurons(network, "4", "6")
    costs = NetworkCosts(network, structure, inputs)
    assert costs.params()(structure.units) == parameters(network)
    assert costs.params()(np.array([3])) == parameters(network) - 6 * (8 + 1 + 5)
    kernels = sum(p.numel() for name, p in network[0].named_parameters() if "bias" not in name)  # type: ignore[index]
    fewer = costs.parameter_bytes()(structure.units) - costs.weight_bytes(bytes_per_weight=1)(structure.units)
    assert fewer == 3 * (kernels + 8 * 9 + 9 * 5)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.row = nn.Conv2d(3, 4, 3), nn.Linear(5, 8)
        self.hidden, self.out = nn.Linear(12, 9), nn.Linear(9, 5)

    def forward(self, image: Tensor, row: Tensor) -> dict[str, Tensor]:
        both = torch.cat([self.image(image).mean((2, 3)), self.row(row)], 1)
        return {"logits": self.out(F.relu(self.hidden(both)))}


@pytest.mark.parametrize("kind", [tuple, dict])
def test_several_inputs_count_as_the_task_calls_the_network(kind: type) -> None:
    network, image, row = TwoInputs().eval(), torch.randn(4, 3, 8, 8), torch.randn(4, 5)
    structure = neurons(network, "hidden", "out")
    inputs: Any = (image, row) if kind is tuple else {"image": image, "row": row}

    def forward(network: nn.Module, inputs: Any) -> Tensor:
        return first_outputs(network(*inputs) if kind is tuple else network(**inputs))

    macs = NetworkCosts(network, structure, inputs, forward=forward).macs()
    assert macs(np.array([9])) == 36 * 27 * 4 + 5 * 8 + 12 * 9 + 9 * 5
    assert macs(np.array([2])) == 36 * 27 * 4 + 5 * 8 + 12 * 2 + 2 * 5


@pytest.mark.parametrize("name", ["dense", "grouped", "separable", "digits_net"])
def test_a_large_network_is_counted_without_computing_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, structure = PRUNABLE[name], PRUNABLE[name].structure()
    plans, devices = np.array([random_plan(structure, seed=seed).kept for seed in range(4)]), set[str]()

    def shrunk(model: nn.Module, *rest: Any) -> nn.Module:
        devices.add(next(model.parameters()).device.type)
        return shrink(model, *rest)

    monkeypatch.setattr(probing, "LIGHT", 0)
    monkeypatch.setattr(probing, "shrink", shrunk)
    traced, computed = NetworkCosts(network.model(), structure, network.inputs()), network.costs()
    assert devices == {"meta"}
    for cost in ("macs", "params", "parameter_bytes", "weights"):
        assert getattr(traced, cost)()(plans).tolist() == getattr(computed, cost)()(plans).tolist()


def test_recurrences_and_attentions_are_counted_without_computing_them() -> None:
    for name in ("recurrent", "attentions"):
        build, shape, _ = NETWORKS[name]
        numbers = []
        for device in ("cpu", "meta"):
            products = record(
                build().eval().to(device), torch.randn(1, *shape, device=device), forward=plain_forward
            ).products
            numbers.append(sum(int(np.prod(product.sizes)) for product in products))
        assert numbers[0] == numbers[1]


def test_a_network_runs_a_few_times_whatever_the_number_of_its_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    network, copies = Network(networks.resnet20, (1, 28, 28)), list[nn.Module]()
    structure = network.structure()

    def shrunk(*arguments: Any) -> nn.Module:
        copies.append(shrink(*arguments))
        return copies[-1]

    monkeypatch.setattr(probing, "shrink", shrunk)
    NetworkCosts(network.model(), structure, network.inputs())
    assert len(copies) == 1 + 1 + (len(structure.groups) - 1).bit_length() + probing.CHECKS


class NeedsValues(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(6, 9), nn.Linear(9, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.hidden(x)
        return self.out(h if h.sum().item() > -1e9 else h.new_zeros(9))


def test_a_large_network_that_needs_values_computes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "LIGHT", 0)
    network = NeedsValues().eval()
    structure = neurons(network, "hidden", "out")
    assert NetworkCosts(network, structure, torch.randn(1, 6)).macs()(np.array([4])) == 4 * (6 + 5)


@torch.library.custom_op("autoprune_tests::doubled", mutates_args=())
def doubled(x: Tensor) -> Tensor:
    return 2 * x


class Odd(nn.Module):
    """An operator of its own, and a product that is there at some widths only."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out, self.extra = nn.Linear(6, 9), nn.Linear(9, 5), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = doubled(self.hidden(x))
        out = self.out(h)
        if h.shape[1] % 2:
            out = out @ (h.T @ h)[:5, :5] if h.shape[1] == 9 else out + h.sum()
        return out if h.shape[1] % 2 else self.extra(out)


def test_what_is_not_counted_is_said() -> None:
    network = Odd().eval()
    costs = NetworkCosts(network, neurons(network, "hidden", "out"), torch.randn(1, 6))
    assert sorted(costs.uncounted) == [
        "matrix product of the network itself is counted as in the dense network: its size does not follow from what "
        "groups keep",
        "multiply–accumulates of autoprune_tests.doubled, which runs 1 times, are not counted: autoprune has no rule "
        "for this operator",
    ]
    assert costs.macs()(np.array([3])) == 3 * (6 + 5) + 9 * 9 + 5 * 5


def test_costs_of_more_than_two_groups_at_a_time_are_products() -> None:
    """Key heads, query heads of each and whether an attention is there: three numbers decide about a projection."""
    task = TINY["llama"]()
    parts = [
        transformer_structure(task.model, task.example_input, prune=kinds)
        for kinds in (("heads", "queries"), ("attention",))
    ]
    structure = replace(parts[0], groups=(*parts[0].groups, *parts[1].groups))
    costs = NetworkCosts(task.model, structure, task.example_input)
    macs, params = costs.macs(), costs.params()
    assert isinstance(macs, ProductCost)
    assert macs.never_falls
    plans = [structure.units, structure.floor]
    plans += [np.array(random_plan(structure, seed=seed).kept) for seed in range(4)]
    for kept in plans:
        small = shrink(task.model, structure, structure.plan(kept), random_ranking(structure, seed=1))
        assert macs(kept) == flop_counter(small, task.example_input)
        assert params(kept) == parameters(small)
    for group, each in enumerate(structure.groups):
        levels = np.array(each.levels)
        assert macs.along(np.array(plans), group, levels).tolist() == [
            [float(macs(np.where(np.arange(len(kept)) == group, level, kept))) for level in levels] for kept in plans
        ]


def test_costs_of_two_groups_at_a_time_are_bilinear() -> None:
    for name in ("residual", "dense", "grouped", "separable"):
        assert isinstance(PRUNABLE[name].costs().macs(), QuadraticCost)
        assert isinstance(PRUNABLE[name].costs().params(), QuadraticCost)


class Frames(nn.Module):
    """Clips of four frames lie in the batch; a frame alone is no clip."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mix, self.out = nn.Conv2d(2, 5, 3), nn.Conv1d(5, 6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        frames = F.relu(self.conv(x)).mean((2, 3))
        clips = frames.view(len(x) // 4, 4, -1).transpose(1, 2)
        return self.out(F.relu(self.mix(clips)).mean(2))


def test_of_a_network_that_reads_no_single_sample_the_whole_example_is_counted() -> None:
    network, clip = Frames().eval(), torch.randn(4, 2, 6, 6)
    structure = find_structure(network, clip)
    assert structure.names == ("conv", "mix")
    macs = NetworkCosts(network, structure, clip).macs()
    for kept in (structure.units, structure.floor, np.array([3, 4])):
        small = shrink(network, structure, structure.plan(kept), random_ranking(structure, seed=0))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            small(clip)
        assert macs(kept[None])[0] == counter.get_total_flops() / 2
