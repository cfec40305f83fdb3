"""A task of large samples from a data set, and the most memory that it takes to prepare and search it."""

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from autoprune import machine_cache
from autoprune.problem.problem import Problem
from autoprune.problem.spec import ProblemSpec
from autoprune.task import lazy_tensor, samples
from autoprune.task.task import Role, Roles, Task
from tests.repair.wide_kernels import peak_bytes

SIDE = 296


class Images(Dataset[Any]):
    """(image of a megabyte, class) pairs."""

    def __init__(self, number: int, *, seed: int) -> None:
        self.number, self.seed = number, seed

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        generator = torch.Generator().manual_seed(1000 * self.seed + index)
        return torch.randn(3, SIDE, 1, generator=generator) * torch.randn(SIDE, generator=generator), index % 4


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 8, 37), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(16 * 36, 4)).eval()


def searched(number: int) -> list[float]:
    """The scores of two plans of the network on so many samples."""
    numbers = {"train": 8, "calibration": number // 4, "search": number, "test": 8}
    roles = {name: Role.from_dataset(Images(of, seed=seed)) for seed, (name, of) in enumerate(numbers.items())}
    task = Task(network(), roles["test"].inputs[:1], Roles(**roles), name="large", budget="macs:0.5")
    problem = Problem.prepare(task, ProblemSpec())
    halves = problem.projector.project(np.full(len(problem.structure.groups), 0.5))
    outcomes = problem.objective.evaluate([problem.structure.dense, problem.structure.plan(halves)])
    return [outcome.score for outcome in outcomes]


if __name__ == "__main__":
    number = int(sys.argv[1])
    lazy_tensor.LOADED_BYTES = 2**22
    torch.set_num_threads(1)
    machine_cache.FREED_BYTES = 2**25
    searched(16)
    print(peak_bytes())  # what torch itself takes
    for copied_bytes in (2**23, 2**40):  # read when they are used; and all in memory
        samples.COPIED_BYTES = copied_bytes
        scores = searched(number)
        print(peak_bytes(), *scores)
