"""A pruned network of every kind learns from the dense one, with labels and without."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoprune.evaluation.judge import Judge
from autoprune.recover.fine_tune import fine_tune
from autoprune.task.roles import Role, Roles
from autoprune.task.task import Task
from autoprune.task.training import fit, flip
from tests.kinds import KINDS, kind_task


def disturbed(task: Task) -> nn.Module:
    """A network that has lost something."""
    copied = copy.deepcopy(task.model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in copied.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.4 * parameter.abs().mean() * noise)
    return copied.eval()


def recovered(task: Task, network: nn.Module, **settings: Any) -> nn.Module:
    arguments = {"steps": 60, "learning_rate": 0.02, "weight_decay": 0.0, "distillation": 1.0, "temperature": 2.0}
    arguments |= {"bf16": False, "batch_size": 32, "generator": torch.Generator().manual_seed(0), "teacher": task.model}
    return fine_tune(network, task, **(arguments | settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_learns_from_the_dense_network(name: str) -> None:
    task = KINDS[name]()
    network = disturbed(task)
    judge = Judge(task, task.data.train)
    before, after = judge(network).kl, judge(recovered(task, network)).kl
    assert after < 0.8 * before


def test_the_scale_of_numbers_makes_no_difference() -> None:
    """Prices in cents are learned as prices in thousands are, beside the task's own loss as well."""
    lost = []
    for scale in (1.0, 1000.0):
        task = kind_task(2, targets=lambda x, scale=scale: scale * x.mean((2, 3))[:, :2])
        with torch.no_grad():
            for head in task.model.heads:
                head.weight.mul_(scale), head.bias.mul_(scale)
        network = copy.deepcopy(task.model)
        nn.init.normal_(network.body[0].weight, std=0.2, generator=torch.Generator().manual_seed(0))
        judge = Judge(task, task.data.train)
        lost.append(judge(recovered(task, network, distillation=0.5)).kl / judge(network).kl)
    assert max(lost) < 0.8


def test_an_augmented_teacher_is_asked_for_every_output() -> None:
    task = KINDS["two heads"]()
    augmented = Task(task.model, task.example_input, task.data, kind=task.outputs[0], augment=flip)
    judge = Judge(augmented, augmented.data.train)
    network = disturbed(augmented)
    assert judge(recovered(augmented, network)).kl < 0.8 * judge(network).kl


def test_without_labels_only_the_dense_network_can_be_learned_from() -> None:
    task = KINDS["unlabelled"]()
    with pytest.raises(ValueError, match=r"distillation=0\) needs labels.*'train'.*recover=distill"):
        recovered(task, task.model, distillation=0.0)
    with pytest.raises(ValueError, match="needs a teacher"):
        recovered(task, task.model, teacher=None)


@pytest.mark.parametrize(("samples", "batch_size"), [(1, 8), (9, 1)])
def test_a_batch_of_one_sample_is_normalised_by_what_is_known(samples: int, batch_size: int) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    role = Role(torch.randn(samples, 3), torch.randint(2, (samples,)))
    fit(
        model, role, loss=lambda o, _, y: nn.functional.cross_entropy(o, y), steps=3, learning_rate=0.1,
        batch_size=batch_size, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    with pytest.raises(ValueError, match="more than 1 value per channel"):  # the control
        model.train()(role.inputs[:1])


def test_several_inputs_are_learned_from() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(4, 8), nn.Linear(2, 8), nn.Linear(8, 3)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.out(torch.relu(self.a(left) + self.b(right)))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    left, right = torch.randn(80, 4), torch.randn(80, 2)
    roles = Roles.split(Role({"left": left, "right": right}, torch.arange(80) % 3))
    task = Task(Two(), {"left": left[:1], "right": right[:1]}, roles)
    network, judge = disturbed(task), Judge(task, task.data.train)
    assert judge(recovered(task, network)).kl < 0.8 * judge(network).kl
