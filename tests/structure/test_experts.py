"""Experts: a network without some is one whose router never chose them, and criteria score what they really add."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.export.network import save_network
from autoprune.importance.activation_norm import activation_norm
from autoprune.importance.magnitude import magnitude
from autoprune.structure.edit import masked, shrink
from autoprune.structure.families import model_type
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Group, Structure
from autoprune.task.pretrained import align_neurons
from autoprune.task.task import Task
from tests.language_models import TINY
from tests.tasks import scored_task

EXPERTS = "model.layers.1.mlp.experts"
both = pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])


def structure_of(task: Task, *kinds: str) -> Structure:
    return find_structure(task.model, task.example_input, prune=kinds)


def group_of(structure: Structure, granularity: str) -> Group:
    return next(g for g in structure.groups if g.granularity == granularity and g.name.startswith(EXPERTS))


@torch.no_grad()
def layer_by_hand(task: Task, hidden: Tensor, without: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    """What the second block's experts make of hidden states [T, H], token by token, and what each adds [E, T, H].

    Written from the papers, not from transformers: arXiv 2401.04088 (Mixtral), and Qwen3's that are not normalised.
    """
    network = task.model
    router = network.get_submodule("model.layers.1.mlp.gate").get_parameter("weight")
    inputs, output = (network.get_submodule(EXPERTS).get_parameter(key) for key in ("gate_up_proj", "down_proj"))
    added = torch.zeros(len(router), *hidden.shape)
    for token, state in enumerate(hidden):
        scores = router @ state
        scores[list(without)] = float("-inf")
        shares = torch.softmax(scores, dim=0)
        chosen = shares.argsort(descending=True)[:2].tolist()
        total = sum(shares[chosen]) if model_type(network) == "mixtral" else 1.0
        for expert in chosen:
            gate, up = (inputs[expert] @ state).chunk(2)
            added[expert, token] = shares[expert] / total * (output[expert] @ (nn.functional.silu(gate) * up))
    return added.sum(dim=0), added


def heard(network: nn.Module, task: Task, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """What the second block's FFN reads and writes, [T, H] each."""
    seen: list[Tensor] = []
    ffn = network.get_submodule("model.layers.1.mlp")
    hook = ffn.register_forward_hook(lambda _, read, wrote: seen.extend([read[0].flatten(0, 1), wrote.flatten(0, 1)]))
    with torch.no_grad():
        task.forward(network, inputs)
    hook.remove()
    return seen[0], seen[1]


@both
def test_an_expert_that_is_gone_is_never_chosen(family: str) -> None:
    task = TINY[family]()
    structure = structure_of(task, "experts")
    group = group_of(structure, "expert")
    kept = np.where([g is group for g in structure.groups], 3, structure.units)
    ranking = {g.name: torch.arange(g.units).roll(1) for g in structure.groups}
    gone = tuple(ranking[group.name][3:].tolist())
    plan, inputs = structure.plan(kept), task.data.search.inputs[:2]
    read, wrote = heard(shrink(task.model, structure, plan, ranking), task, inputs)
    expected = layer_by_hand(task, read, without=gone)[0]
    assert torch.allclose(wrote, expected, atol=1e-5)
    assert not torch.allclose(wrote, layer_by_hand(task, read)[0], atol=1e-2), "or nothing had been chosen of them"
    with masked(task.model, structure, plan, ranking):
        assert torch.allclose(heard(task.model, task, inputs)[1], expected, atol=1e-5)
    assert torch.allclose(heard(task.model, task, inputs)[1], layer_by_hand(task, read)[0], atol=1e-5), "it came back"


@both
def test_experts_stay_as_many_as_every_token_is_handed_to(family: str) -> None:
    group = group_of(structure_of(TINY[family](), "experts"), "expert")
    assert group.levels == tuple(range(2, group.units + 1))


@both
def test_experts_and_neurons_are_scored_by_what_they_add(family: str) -> None:
    task = TINY[family]()
    structure = structure_of(task, "neurons", "experts")
    role = task.data.calibration
    scores = scored_task(partial(activation_norm, batch_size=5), task, structure)
    tokens = scored_task(partial(activation_norm, batch_size=5, experts="tokens"), task, structure)
    read, _ = heard(task.model, task, role.inputs)
    added = layer_by_hand(task, read)[1]
    expert, neuron = group_of(structure, "expert").name, group_of(structure, "neuron").name
    assert torch.allclose(scores[expert], added.square().sum(dim=2).mean(dim=1).sqrt(), rtol=1e-3)
    assert torch.allclose(tokens[expert], (added != 0).any(dim=2).float().mean(dim=1), atol=1e-4)
    assert tokens[expert].sum().item() == pytest.approx(2)
    with torch.no_grad():  # a neuron by itself: what is lost without it, in the layer's outputs
        output = task.model.get_submodule(EXPERTS).get_parameter("down_proj")
        lost = []
        for unit in (0, 5):
            own = output[:, :, unit].clone()
            output[:, :, unit] = 0
            without = layer_by_hand(task, read)[1]
            output[:, :, unit] = own
            lost.append((added - without).square().sum(dim=(0, 2)).mean().sqrt())
    assert torch.allclose(scores[neuron][[0, 5]], torch.stack(lost), rtol=1e-3)
    assert torch.equal(scores[neuron], tokens[neuron])


@both
def test_the_norms_of_experts_weights_score_them_too(family: str) -> None:
    task = TINY[family]()
    structure = structure_of(task, "experts", "neurons")
    scores = scored_task(partial(magnitude, order=2, read=True), task, structure)
    for group in structure.groups:
        assert (scores[group.name] > 0).all()
        assert len(scores[group.name].unique()) == group.units


@both
def test_aligned_neurons_compute_the_same(family: str) -> None:
    task = TINY[family]()
    inputs = task.data.search.inputs[:2]
    with torch.no_grad():
        expected = task.forward(task.model, inputs)
        before = task.model.get_submodule(EXPERTS).get_parameter("down_proj").clone()
        align_neurons(task.model)
        after = task.model.get_submodule(EXPERTS).get_parameter("down_proj")
        assert not torch.equal(before, after)
        assert torch.allclose(task.forward(task.model, inputs), expected, atol=1e-5)


def test_a_saved_network_of_experts_says_what_is_left(tmp_path: Path) -> None:
    task = TINY["mixtral"]()
    structure = structure_of(task, "experts", "neurons")
    small = shrink(
        task.model,
        structure,
        structure.plan(structure.floor),
        {g.name: torch.arange(g.units) for g in structure.groups},
    )
    save_network(small, tmp_path, architecture=task.architecture)
    record = json.loads((tmp_path / "network.json").read_text())
    assert record["others"]["tensors"][f"{EXPERTS}.gate_up_proj"] == [2, 16, 32]
    record["others"]["tensors"][f"{EXPERTS}.gate_up_proj"] = [9, 16, 32]  # more than there were
    (tmp_path / "network.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="must be in"):
        autoprune.load(tmp_path)
