"""The configuration as the command line composes it, its parts as objects, and a task that is prepared by it."""

from collections.abc import Mapping
from typing import Any

from autoprune.cli import composition
from autoprune.cli.parts import instantiate_part as instantiate_part
from autoprune.cli.parts import spec_of, task_of
from autoprune.problem.problem import Problem
from autoprune.task.task import Task


def composed(*overrides: str, job: str = "config") -> dict[str, Any]:
    """Of the main job, or of the one whose file in conf is named."""
    return composition.composed(job, overrides)


def prepared_by(settings: Mapping[str, Any], task: Task | None = None) -> Problem:
    """As `autoprune search` does. evaluation.store is a folder here, or None. task: None for the settings' own."""
    task = task_of(settings["task"], settings.get("data")) if task is None else task
    return Problem.prepare(task, spec_of(settings), seed=settings["seed"])
