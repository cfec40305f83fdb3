from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from autoprune.recover.fine_tune import fine_tune
from autoprune.recover.recovery import no_recovery
from autoprune.structure.edit import shrink
from autoprune.structure.graph import find_structure
from autoprune.task.shipped import digits
from autoprune.task.task import Role, Roles, Task, accuracy
from autoprune.task.training import flip, supports_bf16

SETTINGS: dict[str, Any] = {
    "steps": 7, "learning_rate": 0.02, "weight_decay": 5e-4, "distillation": 0.5, "temperature": 4.0, "bf16": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def task() -> Task:
    return digits()


@pytest.fixture(scope="module")
def pruned(task: Task) -> nn.Module:
    structure = find_structure(task.model, task.example_input)
    generator = torch.Generator().manual_seed(0)
    ranking = {g.name: torch.randperm(g.units, generator=generator) for g in structure.groups}
    return shrink(task.model, structure, structure.plan(np.maximum(structure.units // 2, 1)), ranking)


def recovered(network: nn.Module, task: Task, *, seed: int = 0, **changes: Any) -> nn.Module:
    settings = {"teacher": task.model, **SETTINGS, **changes}
    return fine_tune(network, task, generator=torch.Generator().manual_seed(seed), **settings)


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def poisoned(task: Task) -> Task:
    """The same task where every role but train is NaN."""
    nan = {
        name: Role(torch.full_like(role.inputs, torch.nan), role.targets, role.ids)
        for name, role in task.data.items()
        if name != "train"
    }
    return task.with_data(Roles(train=task.data.train, **nan))


def test_recovery_raises_accuracy(task: Task, pruned: nn.Module) -> None:
    test, network = task.data.test, recovered(pruned, task, steps=21)
    with torch.inference_mode():
        before = accuracy(pruned(test.inputs), test.targets)
        after = accuracy(network(test.inputs), test.targets)
    assert after > before + 0.2


def test_only_the_train_role_is_seen(task: Task, pruned: nn.Module) -> None:
    assert same(state(recovered(pruned, task)), state(recovered(pruned, poisoned(task))))


@pytest.mark.parametrize("augment", [None, flip])
def test_same_seed_same_weights(task: Task, pruned: nn.Module, augment: Any) -> None:
    task = replace(task, augment=augment)
    assert same(state(recovered(pruned, task, seed=3)), state(recovered(pruned, task, seed=3)))
    assert not same(state(recovered(pruned, task, seed=3)), state(recovered(pruned, task, seed=4)))


def test_what_came_in_is_unchanged(task: Task, pruned: nn.Module) -> None:
    before, teacher = state(pruned), state(task.model)
    network = recovered(pruned, task)
    assert same(before, state(pruned))
    assert same(teacher, state(task.model))
    assert not network.training
    assert not same(before, state(network))


def test_without_distillation_the_teacher_makes_no_difference(task: Task, pruned: nn.Module) -> None:
    alone = recovered(pruned, task, distillation=0.0, teacher=None)
    assert same(state(alone), state(recovered(pruned, task, distillation=0.0)))
    assert not same(state(alone), state(recovered(pruned, task)))


def test_without_distillation_the_loss_is_the_tasks(task: Task, pruned: nn.Module) -> None:
    losses: list[float] = []

    def recording(outputs: Tensor, targets: Tensor) -> Tensor:
        losses.append(task.loss(outputs, targets).item())
        return task.loss(outputs, targets)

    reported: list[float] = []
    recovered(
        pruned, replace(task, loss=recording), distillation=0.0, on_step=lambda step, steps, loss: reported.append(loss)
    )
    assert reported == losses


def test_with_distillation_only_targets_do_not_matter(task: Task, pruned: nn.Module) -> None:
    data = task.data
    wrong = Role(data.train.inputs, (data.train.targets + 1) % 10, data.train.ids)
    mislabelled = task.with_data(replace(data, train=wrong))
    assert same(
        state(recovered(pruned, task, distillation=1.0)), state(recovered(pruned, mislabelled, distillation=1.0))
    )


def test_targets_stay_with_their_samples(task: Task, pruned: nn.Module) -> None:
    pairs: list[tuple[Tensor, Tensor]] = []

    def identity(inputs: Tensor, generator: torch.Generator) -> Tensor:
        pairs.append((inputs, torch.empty(0)))
        return inputs

    def recording(outputs: Tensor, targets: Tensor) -> Tensor:
        pairs[-1] = (pairs[-1][0], targets)
        return task.loss(outputs, targets)

    recovered(pruned, replace(task, loss=recording, augment=identity))
    labels = {x.numpy().tobytes(): int(y) for x, y in zip(task.data.train.inputs, task.data.train.targets, strict=True)}
    for inputs, targets in pairs:
        assert [labels[x.contiguous().numpy().tobytes()] for x in inputs] == targets.tolist()


def test_every_step_is_reported(task: Task, pruned: nn.Module) -> None:
    steps: list[tuple[int, int]] = []
    recovered(pruned, task, steps=14, on_step=lambda step, of, loss: steps.append((step, of)))
    assert steps == [(i + 1, len(steps)) for i in range(len(steps))]
    assert len(steps) == 14


def test_weights_come_back_contiguous(task: Task, pruned: nn.Module) -> None:
    assert all(value.is_contiguous() for value in recovered(pruned, task).parameters())


@pytest.mark.parametrize("bf16", [True, "auto"])
def test_bf16_trains_float32_weights(task: Task, pruned: nn.Module, bf16: Any) -> None:
    network = recovered(pruned, task, bf16=bf16)
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in network.parameters())


def test_auto_is_one_of_the_two(task: Task, pruned: nn.Module) -> None:
    chosen = supports_bf16(task.device)
    assert same(state(recovered(pruned, task, bf16="auto")), state(recovered(pruned, task, bf16=chosen)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"distillation": 1.5}, r"distillation.*\[0, 1\], got 1.5"), ({"teacher": None}, "needs a teacher")],
)
def test_senseless_settings_are_refused(task: Task, pruned: nn.Module, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recovered(pruned, task, **changes)


def test_no_recovery_changes_nothing(task: Task, pruned: nn.Module) -> None:
    network = no_recovery(pruned, task, teacher=task.model, generator=torch.Generator())
    assert network is not pruned
    assert same(state(network), state(pruned))


@pytest.mark.parametrize("name", ["fine_tune", "distill"])
def test_the_shipped_settings_recover(task: Task, pruned: nn.Module, name: str) -> None:
    path = Path(__file__).parents[2] / "conf" / "recover" / f"{name}.yaml"
    settings = {str(k): v for k, v in OmegaConf.load(path).items() if not str(k).startswith("_")} | {"steps": 50}
    network = fine_tune(pruned, task, teacher=task.model, generator=torch.Generator().manual_seed(0), **settings)
    with torch.inference_mode():
        assert accuracy(network(task.data.test.inputs), task.data.test.targets) > 0.8
