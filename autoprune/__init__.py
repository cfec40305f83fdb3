"""autoprune: learn how much of each part of a trained network to remove."""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from autoprune.interrupts import ended_at_once, in_console_script

with ended_at_once() if in_console_script() else nullcontext():  # importing Gymnasium takes a while
    import autoprune.env
    import autoprune.schedule  # noqa: F401  both register Gymnasium environments

if TYPE_CHECKING:
    from autoprune.export.network import load_run as load
    from autoprune.plan import PruningPlan
    from autoprune.problem.problem import Problem
    from autoprune.problem.spec import ProblemSpec
    from autoprune.task.outputs import OutputKind
    from autoprune.task.task import Role, Roles, Task
    from autoprune.transfer.policy import Policy

__all__ = ["OutputKind", "Policy", "Problem", "ProblemSpec", "PruningPlan", "Role", "Roles", "Task", "load"]
__version__ = "0.2.0"

_HOMES = {
    "Policy": ("autoprune.transfer.policy", "Policy"),
    "Problem": ("autoprune.problem.problem", "Problem"),
    "ProblemSpec": ("autoprune.problem.spec", "ProblemSpec"),
    "PruningPlan": ("autoprune.plan", "PruningPlan"),
    "OutputKind": ("autoprune.task.outputs", "OutputKind"),
    "Role": ("autoprune.task.task", "Role"),
    "Roles": ("autoprune.task.task", "Roles"),
    "Task": ("autoprune.task.task", "Task"),
    "load": ("autoprune.export.network", "load_run"),
}


def __getattr__(name: str) -> Any:
    """Imports the public names when they are first used: torch takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module 'autoprune' has no attribute {name!r}; public names are {__all__}")
    import importlib

    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(module), attribute)
