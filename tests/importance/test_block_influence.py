"""Block influence, and the criteria on heads and neurons beside it, on a tiny model of every family."""

import itertools
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.importance.activation import activation
from autoprune.importance.activation_norm import activation_norm
from autoprune.importance.block_influence import block_influence
from autoprune.importance.criterion import Importance, rank
from autoprune.importance.fpgm import fpgm
from autoprune.importance.magnitude import magnitude
from autoprune.importance.random_scores import random
from autoprune.importance.taylor import taylor
from autoprune.structure.groups import Group, Returns, Skip, Structure
from autoprune.structure.transformer import transformer_structure
from autoprune.task.task import Role, Task, first_outputs, plain_forward
from tests.language_models import CAUSAL, EVERY_KIND, TINY
from tests.tasks import scored_task

CRITERIA: dict[str, Importance] = {
    "l1": partial(magnitude, order=1, read=False),
    "taylor": partial(taylor, batch_size=8),
    "activation": partial(activation, order=1, batch_size=8),
    "activation_norm": partial(activation_norm, batch_size=8),
    "fpgm": fpgm,
}


def structure_of(task: Task, *kinds: str) -> Structure:
    return transformer_structure(task.model, task.example_input, prune=kinds)


def influence(task: Task, *kinds: str) -> dict[str, Tensor]:
    return block_influence(task.model, structure_of(task, *kinds).groups, task.data.calibration, forward=task.forward)


def hidden_states(task: Task) -> list[Tensor]:
    """[samples, tokens, features] before the first block, between blocks, and after the last."""
    states: list[Tensor] = []
    stages = structure_of(task, "blocks").stages
    hooks = [
        task.model.get_submodule(stage).register_forward_hook(
            lambda _, arguments, output: states.extend([arguments[0], first_outputs(output)])
        )
        for stage in stages
    ]
    with torch.no_grad():
        task.forward(task.model, task.data.calibration.inputs)
    for hook in hooks:
        hook.remove()
    return states


@pytest.mark.parametrize("family", [*EVERY_KIND, "gemma2", "mixtral", "distilbert"])
def test_a_blocks_influence_is_one_minus_the_cosine_across_it(family: str) -> None:
    task = TINY[family]()
    states = hidden_states(task)
    for index, score in enumerate(influence(task, "blocks").values()):
        before, after = states[2 * index : 2 * index + 2]
        expected = 1 - F.cosine_similarity(before, after, dim=-1).mean()
        torch.testing.assert_close(score, expected[None], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", TINY)
def test_a_sublayer_that_does_nothing_has_no_influence(family: str) -> None:
    """The stream before it is the stream after it, where the block's own residual connection adds zeros."""
    task = TINY[family]()
    before = influence(task, "attention", "ffn")
    assert all(score > 1e-3 for score in before.values())
    if family not in CAUSAL:
        return  # a norm behind the sum moves the stream all the same
    structure = structure_of(task, "heads", "neurons")
    with torch.no_grad():
        for group in structure.groups:
            for member in group.members:
                if member.axis == "down_proj/2":
                    task.model.get_submodule(member.layer).get_parameter("down_proj").zero_()
                elif member.axis == "in":
                    layer = task.model.get_submodule(member.layer)
                    assert isinstance(layer, nn.Linear)
                    layer.weight.zero_()
                    if layer.bias is not None:
                        layer.bias.zero_()
    for name, score in influence(task, "attention", "ffn").items():
        assert score.item() == pytest.approx(0, abs=1e-6), name


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_two_sublayers_of_a_block_meet_in_the_middle(family: str) -> None:
    task = TINY[family]()
    states = hidden_states(task)
    block = task.model.get_submodule(structure_of(task, "blocks").stages[0])
    norm = block.get_submodule("post_attention_layernorm" if family == "llama" else "ln_2")
    middle: list[Tensor] = []
    hook = norm.register_forward_pre_hook(lambda _, arguments: middle.append(arguments[0]))
    hidden_states(task)
    hook.remove()
    attention, ffn = list(influence(task, "attention", "ffn").values())[:2]
    sides = ((states[0], middle[-1]), (middle[-1], states[1]))
    expected = [1 - F.cosine_similarity(a, b, dim=-1).mean() for a, b in sides]
    torch.testing.assert_close(torch.cat([attention, ffn]), torch.stack(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "family"),
    [*itertools.product(CRITERIA, EVERY_KIND), *(("taylor", family) for family in TINY if family not in EVERY_KIND)],
)
def test_every_kind_of_unit_is_scored(name: str, family: str) -> None:
    task = TINY[family]()
    structure = structure_of(task, "neurons", "heads", "attention")
    scores = scored_task(CRITERIA[name], task, structure)
    assert list(scores) == list(structure.names)
    for group in structure.groups:
        assert scores[group.name].shape == (group.units,)
        assert torch.isfinite(scores[group.name]).all()
        assert group.units <= 2 or scores[group.name].unique().numel() > 1
    attention = influence(task, "attention")
    assert all(torch.equal(scores[key], score) for key, score in attention.items())


def test_a_heads_activation_norm_is_that_of_its_columns() -> None:
    task = TINY["qwen3"]()
    structure = structure_of(task, "heads", "queries")
    scores = scored_task(CRITERIA["activation_norm"], task, structure)
    layer = task.model.get_submodule("model.layers.0.self_attn.o_proj")
    heard: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, arguments: heard.append(arguments[0].detach()))
    with torch.no_grad():
        task.forward(task.model, task.data.calibration.inputs)
    hook.remove()
    energies = heard[0].square().mean((0, 1)) * layer.get_parameter("weight").detach().square().sum(0)
    by_head = energies.view(2, 2, 16).sum(2)  # key heads, query heads of each, features
    torch.testing.assert_close(scores["model.layers.0.self_attn"], by_head.sum(1).sqrt())
    torch.testing.assert_close(scores["model.layers.0.self_attn.queries"], by_head.sum(0).sqrt())


def test_chance_has_no_need_of_the_network() -> None:
    task = TINY["llama"]()
    structure = structure_of(task, "blocks")
    drawn = [scored_task(random, task, structure) for _ in range(2)]
    assert all(score.shape == (1,) and torch.equal(score, drawn[1][name]) for name, score in drawn[0].items())
    assert len({score.item() for score in drawn[0].values()}) == len(drawn[0])


class GroupSteps(nn.Module):
    """A stream of two features that `turn` turns by 60° and `second` gives back, unless told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.turn, self.second = nn.Linear(2, 2, bias=False), nn.Identity()
        with torch.no_grad():
            self.turn.weight.copy_(torch.tensor([[0.5, -(3**0.5) / 2], [3**0.5 / 2, 0.5]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.turn(x))


def turning(*skips: tuple[str, Returns]) -> Structure:
    group = Group("turn", "block", 1, (), (0, 1), skips=tuple(Skip(name, returns) for name, returns in skips))
    return Structure((group,), ())


@pytest.mark.parametrize(
    ("skips", "expected"),
    [
        ((("turn", "input"),), 0.5),  # cos 60°
        ((("turn", "input"), ("second", "input")), 0.5),
        ((("turn", "zeros"),), 1 - 3**0.5 / 2),  # the sum of two unit vectors 60° apart lies at 30°
        ((("second", "input"),), 0.0),
    ],
)
def test_a_known_angle(skips: tuple[tuple[str, Returns], ...], expected: float) -> None:
    role = Role(torch.randn(9, 3, 2, generator=torch.Generator().manual_seed(0)), torch.zeros(9))
    scores = block_influence(GroupSteps(), turning(*skips).groups, role, forward=plain_forward)
    assert scores["turn"].item() == pytest.approx(expected, abs=1e-6)


def test_modules_in_the_wrong_order_or_that_never_run_are_named() -> None:
    role = Role(torch.ones(2, 2), torch.zeros(2))
    model = GroupSteps()
    with pytest.raises(ValueError, match="turn ran before second; the skips of group 'turn' must stand in order"):
        block_influence(model, turning(("second", "input"), ("turn", "zeros")).groups, role, forward=plain_forward)
    model.add_module("idle", nn.Identity())
    with pytest.raises(ValueError, match="idle of group 'turn' never ran"):
        block_influence(model, turning(("idle", "input")).groups, role, forward=plain_forward)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_networks_without_depth_groups_are_not_run() -> None:
    task = TINY["llama"]()
    structure = structure_of(task, "neurons")

    def forward(network: nn.Module, inputs: Tensor) -> Tensor:
        raise AssertionError("it ran")

    assert block_influence(task.model, structure.groups, task.data.calibration, forward=forward) == {}


@pytest.mark.parametrize("name", [*CRITERIA, "random"])
def test_key_blocks_keep_the_order_of_their_pattern(name: str) -> None:
    task = TINY["llama"]()
    structure = structure_of(task, "heads", "keys:4", "neurons")
    scores = scored_task({**CRITERIA, "random": random}[name], task, structure)
    ranking = rank(scores, structure, criterion=name)
    for group in structure.groups:
        if group.patterns:
            assert ranking[group.name].tolist() == [0, 1, 2, 3]
            assert scores[group.name].tolist() == [1.0, 0.75, 0.5, 0.25]
