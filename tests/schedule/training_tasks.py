"""A digits task that trains in milliseconds."""

import torch
from torch import nn

from autoprune.task.shipped import digits_roles
from autoprune.task.task import Task


def network(kind: str = "conv", *, seed: int = 0) -> nn.Module:
    """A small untrained network for 8×8 digits: "dense", "conv" (BatchNorm, dropout) or "wide"."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "dense":
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        return nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1)),
            *(nn.Flatten(), nn.Linear(128, 10)),
        )


def digits_task(kind: str = "conv", **changes: object) -> Task:
    roles = digits_roles()
    return Task(network(kind), roles.train.inputs[:1], roles, name=f"digits_{kind}", **changes)  # type: ignore[arg-type]
