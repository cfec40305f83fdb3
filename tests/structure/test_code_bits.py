"""Bits are groups: which matrices have one, what a plan says by them, and single weights of any network."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from autoprune.importance.criterion import CriterionInputs, rank
from autoprune.importance.magnitude import magnitude
from autoprune.structure.code_bits import bits_of, with_bits
from autoprune.structure.edit import masked, shrink
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Structure
from autoprune.task.task import Role, plain_forward
from tests.language_models import TINY
from tests.models import PRUNABLE


class Tied(nn.Module):
    """Two layers share a weight, and another has its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(self.second(self.first(x).relu()).relu())  # type: ignore[no-any-return]


def weights_of(model: nn.Module, *shape: int) -> Structure:
    return find_structure(model, torch.zeros(1, *shape), prune=("weights",))


def test_bits_stand_behind_the_density_of_their_matrix() -> None:
    model = PRUNABLE["residual"].model()
    structure = with_bits(weights_of(model, 3, 8, 8), model, (4, 2))
    assert structure.names[:4] == ("conv1", "conv1 bits", "conv2", "conv2 bits")
    assert {group.levels for group in structure.groups[1::2]} == {(2, 4, 32)}
    plan = structure.plan(np.array([group.levels[0] for group in structure.groups]))
    assert bits_of(structure, plan) == dict.fromkeys(structure.names[::2], 2)
    assert bits_of(structure, structure.dense) == {}
    assert [layer.name for layer in structure.layers_of(structure.groups[1])] == ["conv1"]


def test_channels_may_have_bits_too() -> None:
    network = PRUNABLE["residual"]
    structure = with_bits(network.structure(), network.model(), (3,))
    coded = [name for group in structure.groups for name in group.coded]
    assert sorted(coded) == ["conv1", "conv2", "conv3", "fc"]
    assert [group for group in structure.groups if not group.coded] == list(network.structure().groups)


def test_of_a_transformer_every_matrix_that_is_pruned_has_bits() -> None:
    task = TINY["llama"]()
    for prune in (("weights",), ("heads", "neurons")):
        structure = find_structure(task.model, task.example_input, prune=prune, forward=task.forward)
        coded = [name for group in with_bits(structure, task.model, (4,)).groups for name in group.coded]
        assert len(set(coded)) == len(coded) == 7 * task.model.config.num_hidden_layers


def test_layers_that_share_a_weight_have_no_bits_of_their_own() -> None:
    model = Tied().eval()
    structure = with_bits(weights_of(model, 6), model, (2,))
    assert structure.names == ("first", "third", "third bits")
    assert structure.unprunable == {"second": "it shares its weight with first"}


@pytest.mark.parametrize("bits", [(), (0,), (9,), (4, 4), (-1, 2)])
def test_wrong_bits_are_named(bits: tuple[int, ...]) -> None:
    model = PRUNABLE["residual"].model()
    with pytest.raises(ValueError, match=r"structure.bits.*1 to 8.*\["):
        with_bits(weights_of(model, 3, 8, 8), model, bits)


def test_bits_without_matrices_are_an_error() -> None:
    task = TINY["llama"]()
    structure = find_structure(task.model, task.example_input, prune=("blocks",), forward=task.forward)
    with pytest.raises(ValueError, match=r"structure.bits has no effect"):
        with_bits(structure, task.model, (4,))


@pytest.mark.parametrize("name", ["residual", "separable", "grouped", "flattened", "conv1d"])
def test_single_weights_of_any_network_are_masked_as_they_are_removed(name: str) -> None:
    network = PRUNABLE[name]
    model, inputs = network.model(), network.inputs(4)
    structure = weights_of(model, *network.shape)
    given = CriterionInputs(model, structure, Role(inputs, None), cross_entropy, plain_forward, torch.Generator())
    scores = magnitude(given, order=1, read=False)
    ranking = rank(scores, structure, criterion="magnitude")
    kept = np.array([max(1, group.units // 3) for group in structure.groups])
    small = shrink(model, structure, structure.plan(kept), ranking)
    for group, count in zip(structure.groups, kept, strict=True):
        weight, dense = (net.get_submodule(group.name).get_parameter("weight").flatten(1) for net in (small, model))
        assert (weight.count_nonzero(dim=1) == count).all()
        assert (
            torch.equal(weight.abs().sum(dim=1), dense.abs().topk(int(count), dim=1).values.sum(dim=1))
            or (weight.abs().sum() - dense.abs().topk(int(count), dim=1).values.sum()).abs() < 1e-3
        )
    with torch.no_grad(), masked(model, structure, structure.plan(kept), ranking):
        assert torch.equal(model(inputs), small(inputs))


def test_a_layer_that_is_kept_has_the_reason() -> None:
    model = PRUNABLE["residual"].model()
    structure = find_structure(model, torch.zeros(1, 3, 8, 8), prune=("weights",), keep=("fc",))
    assert structure.unprunable == {"fc": "task.keep names fc"}
    with pytest.raises(ValueError, match=r"structure\.prune=\[weights\]"):
        find_structure(nn.Sequential(nn.Linear(4, 2)).eval(), torch.zeros(1, 4), prune=("weights",), keep=("0",))
