"""Low-rank adaptation of every family's tiny model: what it changes, and what it leaves alone."""

import copy
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoprune.recover.lora import lora
from autoprune.structure.skipped_modules import Skipped
from autoprune.task.task import Role, Roles, Task, plain_forward
from tests.language_models import EVERY_KIND, TINY, causal_task
from tests.models import PRUNABLE

SETTINGS: dict[str, Any] = {
    "rank": 2, "alpha": 4, "steps": 4, "batch_size": 8, "learning_rate": 0.01, "weight_decay": 0.0,
    "distillation": 0.9, "temperature": 1.0, "hidden_states": 0.0, "bf16": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def task() -> Task:
    return causal_task("llama")


def adapted(network: nn.Module, task: Task, *, seed: int = 0, **changes: Any) -> nn.Module:
    settings = {"teacher": task.model, **SETTINGS, **changes}
    return lora(network, task, generator=torch.Generator().manual_seed(seed), **settings)


def pruned(task: Task) -> nn.Module:
    """Half of the FFN's neurons of every block are silent, and half of the attention's query weights are gone."""
    network = copy.deepcopy(task.model)
    with torch.no_grad():
        for layer in network.model.layers:  # type: ignore[union-attr]
            layer.mlp.down_proj.weight[:, ::2] = 0
            layer.self_attn.q_proj.weight[::2, 1::2] = 0
    return network


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("family", [*EVERY_KIND, "mixtral", "distilbert"])
def test_what_comes_back_is_the_plain_network_with_other_matrices_in_its_blocks(family: str) -> None:
    task = TINY[family]()
    before = state(task.model)
    network = adapted(task.model, task, steps=2)
    assert type(network) is type(task.model)
    assert same(before, state(task.model))
    after = state(network)
    assert list(after) == list(before)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    linear = {n for n, m in task.model.named_modules() if isinstance(m, nn.Linear) and any(c.isdigit() for c in n)}
    assert changed == {f"{name}.weight" for name in linear}
    assert [type(module) for module in network.modules()] == [type(module) for module in task.model.modules()]
    assert not any(module.training for module in network.modules())
    assert all(p.requires_grad for p in network.parameters())
    assert not hasattr(network, "peft_config")
    inputs = task.data.test.inputs[:2]
    assert task.forward(network, inputs).shape == task.forward(task.model, inputs).shape


def test_what_is_added_is_of_low_rank(task: Task) -> None:
    network = adapted(task.model, task, rank=2)
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and "layers" in name:
            delta = layer.weight - task.model.get_submodule(name).weight
            assert torch.linalg.matrix_rank(delta, rtol=1e-4) == 2


def test_weights_that_are_gone_stay_gone(task: Task) -> None:
    network = pruned(task)
    after = state(adapted(network, task))
    for name, value in state(network).items():
        if "down_proj" in name or "q_proj" in name:
            assert torch.equal(after[name] == 0, value == 0)


def test_training_knows_which_weights_are_gone(task: Task) -> None:
    """The last step's loss is that of the network that comes back, as the learning rate has fallen to nearly zero.

    Were the adapters trained on all weights, and merged into those that are there, it would not be.
    """
    role, losses = task.data.train, []
    settings = {"batch_size": len(role), "distillation": 0.0, "steps": 12, "learning_rate": 0.05, "rank": 8}
    network = adapted(pruned(task), task, on_step=lambda *step: losses.append(step[2]), **settings)
    with torch.no_grad():
        value = task.loss(task.forward(network, role.inputs), role.targets).item()
    assert losses[-1] < 0.8 * losses[0]
    assert value == pytest.approx(losses[-1], rel=0.02)


@pytest.mark.parametrize("hidden_states", [0.0, 1.0])
def test_the_loss_falls(task: Task, hidden_states: float) -> None:
    losses: list[float] = []
    settings = {"distillation": 1.0, "hidden_states": hidden_states, "steps": 40, "batch_size": 32, "rank": 8}
    adapted(pruned(task), task, on_step=lambda step, steps, loss: losses.append(loss), **settings)
    assert len(losses) == 40
    assert losses[-1] < 0.7 * losses[0]


def test_same_seed_same_weights_whatever_the_global_generator_says(task: Task) -> None:
    torch.manual_seed(1)
    first = state(adapted(pruned(task), task, seed=3))
    before = torch.get_rng_state()
    assert same(first, state(adapted(pruned(task), task, seed=3)))
    assert torch.equal(before, torch.get_rng_state())
    assert not same(first, state(adapted(pruned(task), task, seed=4)))


def test_dropout_is_seeded_too() -> None:
    task = TINY["bert"]()  # whose configuration asks for dropout
    assert any(isinstance(m, nn.Dropout) and m.p > 0 for m in task.model.modules())
    torch.manual_seed(1)
    first = state(adapted(task.model, task, seed=3))
    torch.manual_seed(2)
    assert same(first, state(adapted(task.model, task, seed=3)))


def test_only_the_train_role_is_seen(task: Task) -> None:
    zeros = {
        name: Role(torch.zeros_like(role.inputs), torch.zeros_like(role.targets), role.ids)
        for name, role in task.data.items()
        if name != "train"
    }
    blind = task.with_data(Roles(train=task.data.train, **zeros))
    assert same(state(adapted(pruned(task), task)), state(adapted(pruned(task), blind)))


def test_without_a_teacher_it_is_the_tasks_loss(task: Task) -> None:
    alone = adapted(task.model, task, distillation=0.0, teacher=None)
    assert same(state(alone), state(adapted(task.model, task, distillation=0.0)))


def test_blocks_that_are_passed_over_stay_so(task: Task) -> None:
    network = copy.deepcopy(task.model)
    network.set_submodule("model.layers.0", Skipped("input"))
    after = adapted(network, task, hidden_states=1.0)
    assert isinstance(after.get_submodule("model.layers.0"), Skipped)
    assert state(after).keys() == state(network).keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"distillation": -0.1}, r"distillation.*\[0, 1\].*-0.1"), ({"teacher": None}, "needs a teacher")],
)
def test_senseless_settings_are_refused(task: Task, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapted(task.model, task, **changes)


def test_a_network_without_blocks_is_refused() -> None:
    network = PRUNABLE["plain"]
    roles = {name: network.role(8, seed=i) for i, name in enumerate(("train", "calibration", "search", "test"))}
    images = Task(network.model(), network.inputs(), Roles(**roles), forward=plain_forward)
    with pytest.raises(ValueError, match="no blocks"):
        adapted(images.model, images)


def test_without_peft_the_extra_is_named(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"pip install 'autoprune\[llm\]'"):
        adapted(task.model, task)
