"""A task in milliseconds: a small network that was not trained, and random data. Nothing tested needs more."""

from typing import Any

import torch
from torch import Tensor

from autoprune.evaluation.settings import EvaluationSettings
from autoprune.importance.criterion import CriterionInputs, Importance, scored
from autoprune.problem.problem import Problem
from autoprune.problem.spec import ProblemSpec, StructureSettings
from autoprune.repair.repair import Repair
from autoprune.structure.groups import Structure
from autoprune.task.task import Roles, Task
from tests.models import PRUNABLE


def tiny_task(name: str = "residual", **changes: Any) -> Task:
    """The prunable network of that name, on random data."""
    network = PRUNABLE[name]
    roles = {role: network.role(samples, seed=10 + i) for i, (role, samples) in enumerate(SAMPLES.items())}
    arguments = {"name": name, "budget": "macs:0.5", **changes}
    return Task(network.model(), network.inputs(), Roles(**roles), **arguments)


def scored_task(criterion: Importance, task: Task, structure: Structure, *, seed: int = 0) -> dict[str, Tensor]:
    """Group → the criterion's scores on the task's calibration samples."""
    generator = torch.Generator().manual_seed(seed)
    given = CriterionInputs(task.model, structure, task.data.calibration, task.loss, task.forward, generator)
    return scored(criterion, given)


SAMPLES = {"train": 64, "calibration": 32, "search": 60, "test": 40}


def prepared(task: Task, *, seed: int = 0, **changes: Any) -> Problem:
    """The task made ready with the main job's settings and every level, but for what is said otherwise."""
    evaluation = {"proxy_samples": 40, "batch_size": 40, "precision": "fp32", "race": None, "store": None}
    evaluation |= {name: changes.pop(name) for name in list(changes) if name in EvaluationSettings.__slots__}
    structure = {"round_to": 1}  # every level of groups that are small
    structure |= {name: changes.pop(name) for name in list(changes) if name in StructureSettings.__slots__}
    settings = {"repair": Repair(batch_norm=True), **changes}
    spec = ProblemSpec(
        structure=StructureSettings(**structure), evaluation=EvaluationSettings(**evaluation), **settings
    )
    return Problem.prepare(task, spec, seed=seed)
