"""Learning between the blocks: where it is heard, what it costs, and the shipped recipe."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor, nn

from autoprune.recover.hidden_states import LAST, blocks_of, hearing, hidden_loss, kept_blocks
from autoprune.recover.imitation import imitate
from autoprune.structure.skipped_modules import Skipped
from autoprune.task.task import Task
from tests.language_models import CAUSAL, ENCODERS, TINY

BLOCKS = {
    **dict.fromkeys(CAUSAL, "model.layers"), **dict.fromkeys(ENCODERS, "encoder.layer"),
    "gpt2": "transformer.h", "distilbert": "transformer.layer",
}  # fmt: skip


def settings(**changes: Any) -> dict[str, Any]:
    path = Path(__file__).parents[2] / "conf" / "recover" / "layer_reduction.yaml"
    shipped = {str(k): v for k, v in OmegaConf.load(path).items() if not str(k).startswith("_")}
    return {**shipped, "bf16": False, **changes}


def reduced(task: Task) -> nn.Module:
    """Without the second block."""
    network = copy.deepcopy(task.model)
    network.set_submodule(blocks_of(network)[1], Skipped("input"))
    return network


def imitated(network: nn.Module, task: Task, *, seed: int = 0, **changes: Any) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    return imitate(network, task, teacher=task.model, generator=generator, **settings(**changes))


@pytest.mark.parametrize("family", TINY)
def test_the_blocks_are_found(family: str) -> None:
    model = TINY[family]().model
    assert blocks_of(model) == tuple(f"{BLOCKS[family]}.{i}" for i in range(len(blocks_of(model))))
    assert kept_blocks(model) == blocks_of(model)
    model.set_submodule(blocks_of(model)[0], Skipped("input"))
    assert kept_blocks(model) == blocks_of(model)[1:]


@pytest.mark.parametrize("family", TINY)
def test_blocks_are_heard_at_the_same_places_and_hooks_go_again(family: str) -> None:
    """Between blocks stands what transformers call hidden states; the last place is before the final norm."""
    task = TINY[family]()
    blocks, inputs = blocks_of(task.model), task.data.train.inputs[:3]
    with torch.no_grad(), hearing(task.model, before=blocks[1:], after=blocks[-1]) as heard:
        task.forward(task.model, inputs)
        states = copy.deepcopy(task.model)(inputs, output_hidden_states=True).hidden_states
    assert set(heard) == {*blocks[1:], LAST}
    for i, name in enumerate(blocks[1:], start=1):
        if family in ("bert", "roberta", "distilbert"):  # whose windows were padded where they were judged
            assert heard[name].shape == states[i].shape
        else:
            torch.testing.assert_close(heard[name], states[i])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in task.model.modules())


def test_a_skipped_blocks_reader_is_compared_with_what_it_used_to_read() -> None:
    task = TINY["llama"]()
    student, inputs = reduced(task), task.data.train.inputs[:3]
    first, _, last = blocks_of(student)
    with (
        torch.no_grad(),
        hearing(student, before=(last,), after=last) as heard,
        hearing(student, before=(), after=first) as left,
    ):
        task.forward(student, inputs)
    torch.testing.assert_close(heard[last], left[LAST])


@given(st.floats(0.01, 100), st.integers(1, 4), st.integers(0, 100))
def test_the_hidden_loss_knows_directions_only(scale: float, places: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    teacher = {str(i): torch.randn(2, 3, 5, generator=generator) for i in range(places)}
    assert hidden_loss(teacher, teacher).item() == pytest.approx(0, abs=1e-6)
    assert hidden_loss({k: scale * v for k, v in teacher.items()}, teacher).item() == pytest.approx(0, abs=1e-5)
    assert hidden_loss({k: -v for k, v in teacher.items()}, teacher).item() == pytest.approx(2, abs=1e-5)


def test_other_places_are_an_error() -> None:
    with pytest.raises(ValueError, match="heard at"):
        hidden_loss({"a": torch.ones(1, 1, 2)}, {"b": torch.ones(1, 1, 2)})


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert", "distilbert"])
def test_the_shipped_recipe_brings_a_reduced_network_nearer(family: str) -> None:
    task, losses = TINY[family](), []
    network, inputs = reduced(task), task.data.train.inputs

    def kl(other: nn.Module) -> float:
        with torch.no_grad():
            known, said = (task.forward(n, inputs).log_softmax(-1) for n in (task.model, other))
            return nn.functional.kl_div(said, known, log_target=True, reduction="none").sum(-1).mean().item()

    before = copy.deepcopy(network.state_dict())
    generator = torch.Generator().manual_seed(0)
    recovered = imitate(
        network, task, teacher=task.model, generator=generator, on_step=lambda *step: losses.append(step[2]),
        **settings(steps=25, learning_rate=0.003),
    )  # fmt: skip
    assert losses[-1] < losses[0]
    assert kl(recovered) < 0.8 * kl(network)
    assert recovered.state_dict().keys() == before.keys()
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not recovered.training


def test_hidden_states_take_part() -> None:
    task = TINY["bert"]()
    weights: list[Tensor] = []
    for hidden_states in (1.0, 1.0, 0.0):
        network = imitated(reduced(task), task, steps=2, hidden_states=hidden_states)
        weights.append(network.get_submodule(kept_blocks(network)[0]).output.dense.weight)  # type: ignore[union-attr,arg-type]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_teacher_in_training_mode_is_heard_and_left_alone() -> None:
    task = TINY["bert"]()
    expected = imitated(reduced(task), task, steps=2).state_dict()
    task.model.train()
    assert all(torch.equal(expected[k], v) for k, v in imitated(reduced(task), task, steps=2).state_dict().items())
    assert task.model.training


def test_a_network_without_blocks_left_is_refused() -> None:
    task = TINY["gpt2"]()
    network = copy.deepcopy(task.model)
    for name in blocks_of(network):
        network.set_submodule(name, Skipped("input"))
    with pytest.raises(ValueError, match="no block of the network is left"):
        imitated(network, task)
