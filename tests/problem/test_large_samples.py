"""Samples as large as images of 224² and more: no forward pass takes so many that activations fill the memory."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoprune.evaluation.judge import Judge
from autoprune.problem.problem import Problem
from autoprune.problem.spec import ProblemSpec
from autoprune.recover.distillation import teacher_outputs
from autoprune.task.samples import PASS_BYTES
from autoprune.task.task import Role, Roles, Task

SIDE, SAMPLES = 296, 40


@pytest.fixture(scope="module")
def task_and_sizes() -> tuple[Task, list[int]]:
    sizes: list[int] = []

    def forward(network: nn.Module, inputs: Tensor) -> Any:
        sizes.append(len(inputs))
        return network(inputs)

    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 8, 37), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten())
    network = nn.Sequential(*layers, nn.Linear(16 * 36, 4)).eval()
    role = Role(torch.randn(SAMPLES, 3, SIDE, SIDE), torch.randint(4, (SAMPLES,)))
    others = (Role(role.inputs + shift, role.targets) for shift in (1, 2, 3))
    roles = Roles(**dict(zip(("train", "calibration", "search", "test"), (role, *others), strict=True)))
    return Task(network, role.inputs[:1], roles, name="large", budget="macs:0.5", forward=forward), sizes


def test_no_pass_takes_more_than_fit(task_and_sizes: tuple[Task, list[int]]) -> None:
    task, sizes = task_and_sizes
    fit = PASS_BYTES // task.example_input.nbytes
    problem = Problem.prepare(task, ProblemSpec())
    problem.objective.evaluate([problem.structure.plan(problem.projector.project(problem.structure.units * 0 + 0.5))])
    Judge(task, task.data.test)(problem.pruned(problem.structure.dense))
    teacher_outputs(task.model, task.data.train.inputs, forward=task.forward, augment=None, epochs=3, bf16=False)
    assert 2 < fit < SAMPLES - 1
    assert max(sizes) <= fit + 1  # a last one joins the others
    assert fit in sizes
