"""Predicted peaks are those of the shrunk network, which another simulation goes through step by step."""

import operator
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.nn import functional as F

from autoprune.cost.budget import Budget
from autoprune.cost.peak_memory import PeakMemory, buffers_of, peak_memory
from autoprune.cost.projection import Projector
from autoprune.cost.recording import record
from autoprune.structure.edit import shrink
from autoprune.structure.groups import Group, Layer, Member, Structure
from autoprune.task import networks
from autoprune.task.task import plain_forward
from tests.cost.stairs import assert_filled
from tests.models import PRUNABLE, Network, random_plan, random_ranking

NETWORKS = {**PRUNABLE, "mobilenet_v1": Network(networks.mobilenet_v1, (1, 28, 28))}
ELEMENT_WISE = (
    nn.ReLU, nn.ReLU6, nn.PReLU, nn.Tanh, nn.BatchNorm1d, nn.BatchNorm2d, F.relu, F.relu6, F.gelu, torch.relu,
    operator.add,
)  # fmt: skip


class Played(fx.Interpreter):
    """Every step's value, its arguments' values, and whether it is element by element."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(fx.symbolic_trace(model))
        self.steps: list[tuple[Tensor, list[Tensor], bool]] = []

    def run_node(self, node: fx.Node) -> object:
        value = super().run_node(node)
        target = self.fetch_attr(str(node.target)) if node.op == "call_module" else node.target
        same = target in ELEMENT_WISE[6:] if node.op == "call_function" else isinstance(target, ELEMENT_WISE[:6])
        if isinstance(value, Tensor):
            self.steps.append((value, [self.env[n] for n in node.all_input_nodes], same))
        return value


def peak(model: nn.Module, sample: Tensor) -> int:
    """Elements held at once: made at a step, gone after the last that reads it; element-wise steps write over."""
    played = Played(model.eval())
    with torch.no_grad():
        played.run(sample)

    def place(tensor: Tensor) -> int:
        return tensor.untyped_storage().data_ptr()

    last = {place(read): step for step, (_, reads, _) in enumerate(played.steps) for read in reads}
    last[place(played.steps[-1][0])] = len(played.steps)
    held: dict[int, int] = {}
    most = 0
    for step, (value, reads, element_wise) in enumerate(played.steps):
        ending = {place(read): read.numel() for read in reads if last[place(read)] == step and place(read) in held}
        if place(value) not in held:
            over = [key for key, size in ending.items() if element_wise and size == value.numel()]
            if over:
                del held[over[0]]
                ending.pop(over[0])
            held[place(value)] = value.numel()
        most = max(most, sum(held.values()))
        for key in ending.keys() - {place(value)}:
            del held[key]
    return most


@cache
def predicted(name: str, *, element_bytes: int = 4) -> PeakMemory:
    network = NETWORKS[name]
    return peak_memory(
        network.model(), network.structure(), network.inputs(), forward=plain_forward, element_bytes=element_bytes
    )


@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - {"conv1d"}))
def test_the_peak_is_that_of_the_shrunk_network(name: str) -> None:
    network, structure = NETWORKS[name], NETWORKS[name].structure()
    cost, model = predicted(name), network.model()
    plans = [structure.dense, structure.plan(structure.floor), *(random_plan(structure, seed=s) for s in range(4))]
    for plan in plans:
        small = shrink(model, structure, plan, random_ranking(structure, seed=1))
        assert cost(np.array(plan.kept)) == 4 * peak(small, network.inputs()), plan.kept


def test_known_peaks() -> None:
    """By hand: the first convolution of `plain` holds 3 and k planes of 8×8, its second k, and m of 4×4."""
    cost, small = predicted("plain"), predicted("plain", element_bytes=1)
    for first, second in ((8, 10), (1, 10), (1, 1), (3, 2)):
        held = max(3 * 64 + first * 64, first * 64 + first * 16, (first + second) * 16)
        assert cost(np.array([first, second])) == 4 * held
        assert small(np.array([first, second])) == held


def test_what_a_shortcut_needs_is_held_all_along() -> None:
    """`residual`: while conv2 and conv3 run, the stream is there as well."""
    buffers = buffers_of(record(NETWORKS["residual"].model(), NETWORKS["residual"].inputs(), forward=plain_forward))
    longest = max(buffers, key=lambda buffer: buffer.last - buffer.first)
    inside = [buffer for buffer in buffers if longest.first < buffer.first < buffer.last < longest.last]
    assert longest.elements == 8 * 64
    assert [buffer.elements for buffer in inside] == [6 * 64, 8 * 64]  # what conv2 and conv3 write


def test_an_input_of_several_samples_counts_one() -> None:
    network = NETWORKS["residual"]
    several = peak_memory(network.model(), network.structure(), network.inputs(4), forward=plain_forward)
    assert several(network.structure().units) == predicted("residual")(network.structure().units)


@given(st.data())
def test_along_a_group_it_is_the_cost_of_each_level(data: st.DataObject) -> None:
    cost, structure = predicted("dense"), NETWORKS["dense"].structure()
    kept = np.array([[data.draw(st.integers(1, n)) for n in structure.units.tolist()] for _ in range(2)])
    for group, units in enumerate(structure.units.tolist()):
        levels = np.arange(1, units + 1)
        each = np.repeat(kept[:, None], units, axis=1)
        each[..., group] = levels
        assert cost.along(kept, group, levels).tolist() == cost(each).tolist()
        assert (np.diff(cost.along(kept[0], group, levels)) >= 0).all()


@given(st.data())
def test_plans_fill_a_budget_of_memory(data: st.DataObject) -> None:
    cost, structure = predicted("dense"), NETWORKS["dense"].structure()
    least, dense = float(cost(structure.floor)), float(cost(structure.units))
    limit = least + data.draw(st.floats(0, 1)) * (dense - least)
    projector = Projector(structure, Budget("peak_memory", cost, limit, dense))
    assert projector.never_falls
    assert_filled(projector, projector.project(np.array([data.draw(st.floats(0.01, 1)) for _ in structure.units])))


class OuterProduct(nn.Module):
    """Its scores are a product of the first layer's units and the second's."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.out = nn.Linear(6, 4), nn.Linear(6, 5), nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out((self.left(x)[:, :, None] * self.right(x)[:, None]).mean((1, 2))[:, None])


def test_a_tensor_that_grows_with_two_groups_is_refused() -> None:
    network = Network(OuterProduct, (6,))
    sizes = {"left": 4, "right": 5}
    groups = [
        Group(name, "neuron", n, (Member(name, "out", np.arange(n)[:, None], n),), tuple(range(1, n + 1)))
        for name, n in sizes.items()
    ]
    layers = [Layer(name, "linear", n, 6, 1, 1, 1, True, False) for name, n in sizes.items()]
    structure = Structure(tuple(groups), tuple(layers))
    with pytest.raises(ValueError, match="peak_memory"):
        peak_memory(network.model(), structure, network.inputs(), forward=plain_forward)
