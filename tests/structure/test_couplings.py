"""What the experiments on a network conclude: where random weights mislead, and of units that pass by a layer."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.structure.couplings import Laboratory
from autoprune.structure.graph import find_structure
from tests.structure.halves import checked_half


@pytest.mark.parametrize("looks", [[True], [True, False], [False]])
def test_a_coincidence_of_random_weights_is_no_block(looks: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look sees units beside what all blocks share, and no later one does: nothing is said of them."""
    laboratory = object.__new__(Laboratory)
    tap = SimpleNamespace(nodes=np.arange(12), layer="reader")
    answers: Iterator[object] = iter([(6, []) if look else None for look in looks])
    monkeypatch.setattr(Laboratory, "_in_one_block", lambda *_: next(answers, None))
    note = pytest.fail
    assert not laboratory._beside_shared(tap, [], note)  # type: ignore[arg-type]


class GraphConvolutions(nn.Module):
    """Nodes are mixed by a matrix that is the same for all features, given, learned or a layer."""

    def __init__(self, mixing: str) -> None:
        super().__init__()
        self.mixing, self.first, self.second, self.last = mixing, nn.Linear(4, 10), nn.Linear(10, 14), nn.Linear(14, 3)
        self.layer, self.learned = nn.Linear(7, 7), nn.Parameter(torch.randn(7, 7))
        self.given: Tensor
        self.register_buffer("given", torch.rand(7, 7))
        self.shift, self.place = nn.Parameter(torch.randn(10)), nn.Parameter(torch.randn(7, 10))

    def mixed(self, x: Tensor) -> Tensor:
        match self.mixing:
            case "given":
                return self.given @ x
            case "learned":
                return torch.einsum("nm,bmf->bnf", self.learned, x)
        y: Tensor = self.layer(x.transpose(1, 2)).transpose(1, 2)
        return y

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.mixed(self.first(x) + self.place) + self.shift)
        y: Tensor = self.last(torch.relu(self.mixed(self.second(h))).mean(1))
        return y


@pytest.mark.parametrize("mixing", ["given", "learned", "layer"])
def test_features_pass_by_what_mixes_the_nodes_of_a_graph(mixing: str) -> None:
    torch.manual_seed(0)
    structure = find_structure(GraphConvolutions(mixing), torch.randn(2, 7, 4))
    members = {group.name: {(m.layer, m.axis) for m in group.members} for group in structure.groups}
    assert members["first"] == {("first", "out"), ("", "shift/0"), ("", "place/1"), ("second", "in")}
    assert members["second"] == {("second", "out"), ("last", "in")}


class Gated(nn.Module):
    """As gMLP: one half of the features is mixed along the tokens and multiplied into the other half."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.tokens, self.narrow = nn.Linear(5, 24), nn.Conv1d(6, 6, 1), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.wide(x).chunk(2, dim=-1)
        y: Tensor = self.narrow(first * self.tokens(second)).mean(1)
        return y


def test_halves_of_which_one_is_mixed_along_the_tokens_go_together() -> None:
    torch.manual_seed(0)
    structure = find_structure(Gated(), torch.randn(2, 6, 5))
    (group,) = structure.groups
    assert (group.name, group.members[0].positions.tolist()) == ("wide", [[unit, unit + 12] for unit in range(12)])
    assert "tokens" in structure.unprunable


class Interested(nn.Module):
    """A recommender's attention (DIN, arXiv 1706.06978): what was seen is compared with an item and weighed."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.compare = nn.Embedding(9, 4), nn.Sequential(nn.Linear(16, 6), nn.Sigmoid(), nn.Linear(6, 1))
        self.head = nn.Linear(8, 2)

    def forward(self, item: Tensor, seen: Tensor) -> Tensor:
        item, seen = self.embed(item), self.embed(seen)
        other = item[:, None].expand_as(seen)
        weights = self.compare(torch.cat([other, seen, other - seen, other * seen], -1)).softmax(1)
        return self.head(torch.cat([item, (weights * seen).sum(1)], -1))  # type: ignore[no-any-return]


def test_one_map_for_all_units_ties_none_that_meet_elsewhere() -> None:
    torch.manual_seed(0)
    network, inputs = Interested().eval(), (torch.tensor([3]), torch.tensor([[1, 2, 5]]))
    structure = find_structure(network, inputs)
    assert {group.name: group.units for group in structure.groups} == {"embed": 4, "compare.0": 6}
    reads = {m.layer: m.positions.shape for m in structure.groups[0].members if m.axis == "in"}
    assert reads == {"compare.0": (4, 4), "head": (4, 2)}
    assert structure.unprunable.keys() == {"compare.2", "head"}


class Partial(nn.Module):
    """As FasterNet's convolution (arXiv 2303.03667): it reads some of the channels and passes the others on."""

    def __init__(self, channels: int, read: int) -> None:
        super().__init__()
        self.read, self.passed = read, channels - read
        self.conv = nn.Conv2d(read, read, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        first, rest = torch.split(x, [self.read, self.passed], dim=1)
        return torch.cat([self.conv(first), rest], 1)


def test_a_module_that_passes_on_what_its_layers_do_not_read_has_its_numbers_changed() -> None:
    torch.manual_seed(0)
    block = nn.Sequential(Partial(14, 5), nn.Conv2d(14, 6, 1), nn.ReLU())
    network, x = nn.Sequential(nn.Conv2d(3, 14, 1), block, nn.Conv2d(6, 2, 1)).eval(), torch.randn(2, 3, 5, 5)
    structure = find_structure(network, x)
    assert sorted(structure.units.tolist()) == [5, 6, 9]
    checked_half(network, structure, x)


class NormedHeads(nn.Module):
    """Queries and keys are normalised head by head, by weights that all heads share (as in Qwen3 and Gemma 3)."""

    def __init__(self, norm: Callable[[int], nn.Module], groups: int) -> None:
        super().__init__()
        self.take, self.q, self.k, self.v = (
            nn.Linear(5, 7),
            nn.Linear(7, 24),
            nn.Linear(7, 4 * groups),
            nn.Linear(7, 4 * groups),
        )
        self.q_norm, self.k_norm, self.out = norm(4), norm(4), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.take(x)
        q, k, v = (layer(x).unflatten(-1, (-1, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        k, v = (y.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for y in (self.k_norm(k), v))
        mixed = F.scaled_dot_product_attention(self.q_norm(q), k, v)
        return self.out(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("norm", "groups"), [(nn.RMSNorm, 6), (nn.LayerNorm, 3)])
def test_heads_go_through_norms_of_each_of_them(norm: Callable[[int], nn.Module], groups: int) -> None:
    torch.manual_seed(0)
    network, x = NormedHeads(norm, groups).eval(), torch.randn(2, 6, 5)
    structure = find_structure(network, x)
    assert {group.name: (group.units, group.granularity) for group in structure.groups} == {
        "take": (7, "neuron"), "q": (groups, "head"),
    }  # fmt: skip
    checked_half(network, structure, x)
