"""A task in milliseconds: a small network that was not trained, and random data. Nothing tested needs more."""

from functools import partial
from typing import Any

import torch

from autoprune.evaluation import judge, reward
from autoprune.evaluation.settings import EvaluationSettings
from autoprune.importance.magnitude import magnitude
from autoprune.problem.prepare import Prepared, prepare
from autoprune.repair.repair import Repair
from autoprune.task.task import Roles, Task
from tests.models import PRUNABLE


def tiny_task(name: str = "residual", **changes: Any) -> Task:
    """The prunable network of that name, on random data."""
    network = PRUNABLE[name]
    roles = {role: network.role(samples, seed=10 + i) for i, (role, samples) in enumerate(SAMPLES.items())}
    arguments = {"name": name, "budget": "macs:0.5", **changes}
    return Task(network.model(), network.inputs(), Roles(**roles), **arguments)


SAMPLES = {"train": 64, "calibration": 32, "search": 60, "test": 40}


def prepared(task: Task, **changes: Any) -> Prepared:
    """The task made ready with the main job's settings, but for what is said otherwise."""
    settings: dict[str, Any] = {
        "budget": None,
        "importance": partial(magnitude, order=1, read=False),
        "repair": Repair(batch_norm=True),
        "score": judge.kl,
        "reward": reward.under_budget,
        "round_to": 1,
        "min_units": 1,
        "generator": torch.Generator().manual_seed(0),
    }
    evaluation = {"proxy_samples": 40, "batch_size": 40, "precision": "fp32"}
    evaluation |= {name: changes.pop(name) for name in list(changes) if name in EvaluationSettings.__slots__}
    return prepare(task, evaluation=EvaluationSettings(**evaluation), **(settings | changes))
