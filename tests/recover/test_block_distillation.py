"""Blocks that learn what the dense network does in their place: what is asked of each, and what it is worth."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from autoprune import testing
from autoprune.recover.block_distillation import BlockLocal, Span, distill_blocks, spans
from autoprune.recover.hidden_states import LAST, blocks_of
from autoprune.structure.edit import masked, shrink
from autoprune.structure.graph import find_structure
from autoprune.structure.skipped_modules import Skipped
from autoprune.task.task import Task
from tests.language_models import TINY, causal_task
from tests.models import random_ranking

STEPS = 30
RATES = {"block_learning_rate": 0.003, "learning_rate": 0.003, "distillation": 1.0}


def settings(**changes: Any) -> dict[str, Any]:
    path = Path(__file__).parents[2] / "conf" / "recover" / "block_distillation.yaml"
    shipped = {str(k): v for k, v in OmegaConf.load(path).items() if not str(k).startswith("_")}
    return {**shipped, "bf16": False, **changes}


def distilled(network: nn.Module, task: Task, *, seed: int = 0, **changes: Any) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    return distill_blocks(network, task, teacher=task.model, generator=generator, **settings(**changes))


def without(task: Task, *blocks: int) -> nn.Module:
    network = copy.deepcopy(task.model)
    for index in blocks:
        network.set_submodule(blocks_of(network)[index], Skipped("input"))
    return network


def narrowed(task: Task, *, neurons: int = 24) -> nn.Module:
    structure = find_structure(task.model, task.example_input, prune=("neurons",))
    plan = structure.plan(np.full(len(structure.groups), neurons))
    return shrink(task.model, structure, plan, random_ranking(structure, seed=1))


def errors(network: nn.Module, task: Task, inputs: Tensor) -> list[float]:
    with torch.no_grad(), BlockLocal.opened(network, task, teacher=task.model, bf16=False) as local:
        local.forward(network, inputs)
        return local.errors.tolist()  # type: ignore[no-any-return]


def kl(network: nn.Module, task: Task, inputs: Tensor) -> float:
    with torch.no_grad():
        dense, own = (task.forward(each, inputs).log_softmax(-1) for each in (task.model, network))
        return nn.functional.kl_div(own, dense, log_target=True, reduction="none").sum(-1).mean().item()


def test_the_blocks_that_are_left_share_out_the_whole_stack() -> None:
    task = causal_task("llama", num_hidden_layers=6)
    name = "model.layers.{}".format
    assert spans(without(task, 0, 2, 3)) == (
        Span(name(1), name(0), name(4)),
        Span(name(4), name(4), name(5)),
        Span(name(5), name(5), LAST),
    )
    with pytest.raises(ValueError, match="no block of the network is left"):
        spans(without(task, *range(6)))


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "bert", "distilbert"])
def test_a_wrong_block_is_wrong_by_itself(family: str) -> None:
    task = TINY[family]()
    inputs, count = task.data.test.inputs[:4], len(blocks_of(task.model))
    assert errors(task.model, task, inputs) == [0] * count
    network = copy.deepcopy(task.model)
    with torch.no_grad():
        next(network.get_submodule(blocks_of(network)[0]).parameters()).mul_(1.5)
    wrong, *behind = errors(network, task, inputs)
    assert wrong > 0.001
    assert behind == [0] * (count - 1), "they read what the dense network has there"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_block_misses_what_those_behind_it_would_have_added(family: str) -> None:
    """Held against the hidden states that transformers hands out of the dense network."""
    task = causal_task(family, **{"n_layer" if family == "gpt2" else "num_hidden_layers": 4})
    inputs = task.data.test.inputs[:4]
    with torch.no_grad():
        states = task.model.base_model(inputs, output_hidden_states=True).hidden_states  # type: ignore[operator]

    def energy(first: int, last: int) -> Tensor:
        return (states[last] - states[first]).square().sum(-1)  # type: ignore[no-any-return]

    missed = (energy(2, 3) / energy(1, 3)).mean().item()
    assert errors(without(task, 2), task, inputs) == pytest.approx([0, missed, 0], rel=1e-4)
    run = (energy(1, 3) / energy(0, 3)).mean().item()
    assert errors(without(task, 1, 2), task, inputs) == pytest.approx([run, 0], rel=1e-4)
    assert errors(without(task, 0), task, inputs)[1:] == [0, 0]


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_only_what_differs_from_the_dense_network_learns_at_first(family: str) -> None:
    task = TINY[family]()
    network = without(task, 1)
    learnt = distilled(network, task, block_steps=3, steps=0)
    changed = {
        name for name, value in learnt.state_dict().items() if not torch.equal(value, network.state_dict()[name])
    }
    first = blocks_of(network)[0]
    assert changed, "the block before the one that is gone learns"
    assert all(name.startswith(f"{first}.") for name in changed), "and no other"
    assert all(parameter.requires_grad for parameter in learnt.parameters())
    frozen = copy.deepcopy(network)
    frozen.get_submodule(first).requires_grad_(False)
    assert not any(
        p.requires_grad for p in distilled(frozen, task, block_steps=0, steps=1).get_submodule(first).parameters()
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_from_few_windows_narrow_ffns_learn_more_than_by_as_many_steps_on_logits(seed: int) -> None:
    """From 32 windows; where none is seen twice, logits alone come as far by KL, and leave the blocks' errors."""
    task = causal_task("llama", seed=seed)
    network, unseen = narrowed(task), task.data.test.inputs
    both = distilled(network, task, seed=seed, block_steps=STEPS // 2, steps=STEPS // 2, **RATES)
    logits = distilled(network, task, seed=seed, block_steps=0, steps=STEPS, **RATES)
    before, after, alone = (np.mean(errors(each, task, unseen)) for each in (network, both, logits))
    assert after < before < alone
    assert kl(both, task, unseen) < kl(logits, task, unseen) < kl(network, task, unseen)


def test_what_stands_for_a_removed_block_learns_it_and_the_logits_after() -> None:
    task = causal_task("llama")
    network, unseen = without(task, 1), task.data.test.inputs
    losses: list[tuple[int, int, float]] = []
    recovered = distilled(network, task, block_steps=STEPS, steps=STEPS, on_step=lambda *at: losses.append(at), **RATES)
    by_blocks = distilled(network, task, block_steps=STEPS, steps=0, **RATES)
    assert errors(by_blocks, task, unseen)[0] < 0.9 * errors(network, task, unseen)[0]
    assert kl(recovered, task, unseen) < kl(by_blocks, task, unseen) < kl(network, task, unseen)
    assert [step[:2] for step in losses] == [(i + 1, 2 * STEPS) for i in range(2 * STEPS)]
    assert losses[STEPS - 1][2] < losses[0][2]


def test_weights_that_are_gone_stay_gone() -> None:
    task = TINY["llama"]()
    structure = find_structure(task.model, task.example_input, prune=("weights",))
    plan = structure.plan(np.array([group.levels[len(group.levels) // 2] for group in structure.groups]))
    with masked(task.model, structure, plan, random_ranking(structure, seed=1)) as network:
        sparse = copy.deepcopy(network)
    learnt = distilled(sparse, task, block_steps=2, steps=2).state_dict()
    zeros = {name: value == 0 for name, value in sparse.state_dict().items() if value.ndim > 1 and (value == 0).any()}
    assert zeros
    assert all(torch.equal(learnt[name] == 0, there) for name, there in zeros.items())


@pytest.mark.parametrize("block_steps", [0, 3])
def test_it_conforms(block_steps: int) -> None:
    """The dense network has nothing to learn block by block, so one that differs from it is handed over as well."""
    task = TINY["llama"]()

    def differing(network: nn.Module, task: Task, **arguments: Any) -> nn.Module:
        other = copy.deepcopy(network)
        with torch.no_grad():
            other.get_submodule(f"{blocks_of(network)[1]}.mlp.down_proj").weight.mul_(0.5)  # type: ignore[operator]
        return distill_blocks(other, task, **arguments, **settings(block_steps=block_steps, steps=2))

    testing.check_recovery(differing, task=task)
    testing.check_recovery(lambda *given, **named: distill_blocks(*given, **named, **settings(steps=2)), task=task)


def test_it_needs_a_teacher_and_blocks() -> None:
    task = TINY["llama"]()
    with pytest.raises(ValueError, match="needs a teacher"):
        distill_blocks(task.model, task, teacher=None, generator=torch.Generator(), **settings())
    small = testing.small_task()
    with pytest.raises(ValueError, match="has no blocks"):
        distilled(small.model, small)


def test_a_teacher_in_training_mode_is_heard_and_left_alone() -> None:
    task = TINY["bert"]()  # with dropout
    network = without(task, 1)
    expected = distilled(network, task, block_steps=2, steps=1).state_dict()
    task.model.train()
    again = distilled(network, task, block_steps=2, steps=1).state_dict()
    assert all(torch.equal(expected[name], value) for name, value in again.items())
    assert task.model.training
