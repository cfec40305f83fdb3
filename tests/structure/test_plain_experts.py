"""Whole experts of networks that no family describes: found by what they read; removed, they add nothing."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.cost.observed import NetworkCosts
from autoprune.evaluation.ordered import OrderedNetwork
from autoprune.importance.block_influence import block_influence
from autoprune.structure.edit import masked, shrink
from autoprune.structure.examples import Example
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Skip
from autoprune.structure.plain_experts import expert_groups
from autoprune.task.roles import Role
from autoprune.task.task import plain_forward

STREAM, HIDDEN, EXPERTS = 6, 5, 4


class Routed(nn.Module):
    """Every row goes to two of four experts; what they make of it is weighted and added."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(STREAM, EXPERTS)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(STREAM, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, STREAM)) for _ in range(EXPERTS)
        )

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(2, dim=-1)
        mask = F.one_hot(chosen, EXPERTS).permute(2, 0, 1)
        total = x.clone()
        for index, expert in enumerate(self.experts):
            rows, slots = torch.where(mask[index])
            if rows.numel():
                total.index_add_(0, rows, expert(x[rows]) * weights[rows, slots, None])
        return total


class Blended(nn.Module):
    """All experts read all rows, and sigmoids say how much each of them counts."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(STREAM, EXPERTS)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(STREAM, STREAM), nn.Tanh()) for _ in range(EXPERTS))

    def forward(self, x: Tensor) -> Tensor:
        made = torch.stack([expert(x) for expert in self.experts], dim=-1)
        return x + (made * self.gate(x).sigmoid()[:, None]).sum(-1)


def network(between: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(3, STREAM), between, nn.Linear(STREAM, 2)).eval()


@pytest.mark.parametrize("kind", [Routed, Blended])
@pytest.mark.parametrize("rows", [1, 7])
def test_a_removed_expert_adds_nothing(kind: type[nn.Module], rows: int) -> None:
    torch.manual_seed(rows)
    model, x = network(kind()), torch.randn(rows, 3)
    structure = find_structure(model, x, prune=("experts",))
    assert structure.names == tuple(f"1.experts.{index}.skip" for index in range(EXPERTS))
    assert all(group.levels == (0, 1) and group.granularity == "expert" for group in structure.groups)
    plan = structure.plan(np.array([1, 0, 1, 0]))
    ranking = {name: torch.zeros(1, dtype=torch.int64) for name in structure.names}
    silent = network(kind())
    silent.load_state_dict(model.state_dict())
    for index in (1, 3):  # an oracle that knows of no masks: experts of which all weights are zero
        for parameter in silent.get_submodule(f"1.experts.{index}").parameters():
            nn.init.zeros_(parameter)
    inputs = torch.randn(20, 3)
    small = shrink(model, structure, plan, ranking)
    ordered = OrderedNetwork(model, structure, ranking).at(plan.kept)
    with torch.no_grad():
        expected = silent(inputs)
        assert torch.allclose(small(inputs), expected, atol=1e-5)
        assert torch.allclose(ordered(inputs), expected, atol=1e-5)
        with masked(model, structure, plan, ranking):
            assert torch.allclose(model(inputs), expected, atol=1e-5)
    params = NetworkCosts(model, structure, x).params()(np.array([plan.kept, plan.units]))
    assert params.tolist() == [sum(p.numel() for p in n.parameters()) for n in (small, model)]


def test_experts_stand_beside_their_neurons() -> None:
    torch.manual_seed(0)
    model, x = network(Routed()), torch.randn(9, 3)
    structure = find_structure(model, x, prune=("neurons", "experts"))
    without = find_structure(model, x)
    assert structure.names == (*without.names, *(f"1.experts.{index}.skip" for index in range(EXPERTS)))
    assert set(find_structure(model, x, prune=("neurons",)).names) == set(without.names)
    kept = np.array([3, *[2] * EXPERTS, 1, 0, 0, 1])
    ranking = {group.name: torch.arange(group.units).flip(0) for group in structure.groups}
    small = shrink(model, structure, structure.plan(kept), ranking)
    with torch.no_grad(), masked(model, structure, structure.plan(kept), ranking):
        assert torch.allclose(small(x), model(x), atol=1e-5)
    costs = NetworkCosts(model, structure, x)
    assert costs.params()(kept[None])[0] == sum(p.numel() for p in small.parameters())


class OneForAll(nn.Module):
    """All rows go to one expert of a dictionary, whose number is taken from the tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(STREAM, EXPERTS)
        self.experts = nn.ModuleDict({f"e{index}": nn.Linear(STREAM, STREAM) for index in range(EXPERTS)})

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.gate(x.mean(0)).argmax().item()
        return x + list(self.experts.values())[int(chosen)](x)


def test_experts_may_stand_in_a_dictionary() -> None:
    torch.manual_seed(0)
    structure = find_structure(network(OneForAll()), torch.randn(5, 3), prune=("neurons", "experts"))
    assert structure.names == ("0", *(f"1.experts.e{index}.skip" for index in range(EXPERTS)))


class ByIndex(nn.Module):
    """Experts are rows of one tensor, which are picked for every sample."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(STREAM, EXPERTS)
        self.inner, self.outer = (nn.Parameter(torch.randn(EXPERTS, *s) * 0.3) for s in ((9, STREAM), (STREAM, 9)))

    def forward(self, x: Tensor) -> Tensor:
        weight, chosen = self.gate(x).softmax(-1).max(-1)
        hidden = torch.relu(torch.einsum("bhd,bd->bh", self.inner[chosen], x))
        return x + weight[:, None] * torch.einsum("bdh,bh->bd", self.outer[chosen], hidden)


def test_experts_that_are_picked_from_a_tensor_end_in_no_traceback() -> None:
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Linear(3, 7), nn.ReLU(), network(ByIndex())).eval()
    wide[2][0] = nn.Linear(7, STREAM)
    structure = find_structure(wide, torch.randn(5, 3))
    assert "0" in structure.names


class Stack(nn.Module):
    """Blocks that are alike and run one after the other: no experts."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(STREAM, STREAM) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return x


class Wider(nn.Module):
    """Experts that return more than they read."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(STREAM, STREAM + 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return sum(expert(x) for expert in self.experts)[:, :STREAM]


def test_what_is_no_expert_or_cannot_be_left_out_is_none() -> None:
    examples = [Example(torch.randn(4, 3))]
    assert expert_groups(network(Stack()), examples, keep=frozenset()) == ([], {})
    groups, kept = expert_groups(network(Wider()), examples, keep=frozenset())
    assert groups == []
    assert list(kept) == ["1.experts.0.skip", "1.experts.1.skip"]
    assert all("returns another shape" in reason for reason in kept.values())
    groups, kept = expert_groups(network(Blended()), examples, keep=frozenset({"1.experts.2.0"}))
    assert [group.skips for group in groups] == [(Skip(f"1.experts.{index}", "zeros"),) for index in (0, 1, 3)]
    assert kept == {"1.experts.2.skip": "task.keep names 1.experts.2.0"}
    with pytest.raises(ValueError, match="no list of modules that are alike"):
        find_structure(network(Stack()), torch.randn(4, 3), prune=("experts",))


@pytest.mark.parametrize("prune", [("heads",), ("experts", "weights"), ("experts", "experts")])
def test_other_kinds_are_for_transformers(prune: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="name neurons, experts, both of them, or weights"):
        find_structure(network(Routed()), torch.randn(4, 3), prune=prune)


def test_an_expert_that_nothing_is_routed_to_has_no_influence() -> None:
    torch.manual_seed(0)
    model = network(Routed())
    model.get_parameter("1.gate.bias").data[2] = -100.0
    groups, _ = expert_groups(model, [Example(torch.randn(9, 3))], keep=frozenset())
    role = Role(torch.randn(30, 3), torch.zeros(30, dtype=torch.int64))
    influence = block_influence(model, groups, role, forward=plain_forward)
    assert influence["1.experts.2.skip"].tolist() == [0.0]
    assert all(influence[f"1.experts.{index}.skip"].item() > 0 for index in (0, 1, 3))
