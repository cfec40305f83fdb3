"""Samples as large as images of 224² and more: neither they nor what a forward pass makes of them fill the memory."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.evaluation.judge import Judge
from autoprune.problem.problem import Problem
from autoprune.problem.spec import ProblemSpec
from autoprune.recover.distillation import teacher_outputs
from autoprune.task.samples import PASS_BYTES
from autoprune.task.task import Role, Roles, Task
from tests.problem.large_samples import SIDE, network

ROOT, SAMPLES = Path(__file__).parents[2], 40


@pytest.fixture(scope="module")
def task_and_sizes() -> tuple[Task, list[int]]:
    sizes: list[int] = []

    def forward(called: nn.Module, inputs: Tensor) -> Any:
        sizes.append(len(inputs))
        return called(inputs)

    role = Role(torch.randn(SAMPLES, 3, SIDE, SIDE), torch.randint(4, (SAMPLES,)))
    others = (Role(role.inputs + shift, role.targets) for shift in (1, 2, 3))
    roles = Roles(**dict(zip(("train", "calibration", "search", "test"), (role, *others), strict=True)))
    return Task(network(), role.inputs[:1], roles, name="large", budget="macs:0.5", forward=forward), sizes


def test_no_pass_takes_more_than_fit(task_and_sizes: tuple[Task, list[int]]) -> None:
    task, sizes = task_and_sizes
    fit = PASS_BYTES // task.example_input.nbytes
    problem = Problem.prepare(task, ProblemSpec())
    problem.objective.evaluate(
        [problem.structure.plan(problem.projector.project(np.full(len(problem.structure.groups), 0.5)))]
    )
    Judge(task, task.data.test)(problem.pruned(problem.structure.dense))
    teacher_outputs(task.model, task.data.train.inputs, forward=task.forward, augment=None, epochs=3, bf16=False)
    assert 2 < fit < SAMPLES - 1
    assert max(sizes) <= fit + 1  # a last one joins the others
    assert fit in sizes


@pytest.mark.slow
def test_samples_of_a_large_data_set_are_never_all_in_memory() -> None:
    number = 100
    command = [sys.executable, "-W", "ignore", "-m", "tests.problem.large_samples", str(number)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (torch_alone,), (lazily, *scores), (in_memory, *expected) = (line.split() for line in said.splitlines())
    all_bytes = 3 * SIDE**2 * 4 * (number + number // 4)
    assert scores == expected
    assert int(lazily) - int(torch_alone) < 0.5 * all_bytes
    assert int(in_memory) - int(torch_alone) > 1.0 * all_bytes, "or it is not measured"
