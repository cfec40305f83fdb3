"""Environments from a task and a budget, for `gymnasium.make` and `gymnasium.make_vec`.

The settings not named here are the main job's own, but that nothing is raced: a plan's reward is its own, whichever
other plans are evaluated together with it.
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.env.layerwise import Evaluate, LayerwiseEnv
from autoprune.env.one_shot import OneShotEnv
from autoprune.env.plan_edits import EditEnv, Editing, EditVectorEnv
from autoprune.env.vector_envs import LayerwiseVectorEnv, OneShotVectorEnv
from autoprune.problem.defaults import with_defaults
from autoprune.problem.prepare import Prepared
from autoprune.structure.groups import IntArray, Structure
from autoprune.task.task import Task


def layerwise(
    *, task: str | Task, budget: str | Sequence[str] | None = None, proxy_samples: int | None = None
) -> LayerwiseEnv:
    """`gym.make("autoprune/Layerwise-v0", task="digits", budget="macs:0.5")`

    task: a shipped task's name or a Task of your own. budget: one, or several as a list.
    proxy_samples: of the search role; None: half, at most 1,500, unless the task says.
    """
    return LayerwiseEnv(**_parts(with_defaults(task, budget=budget, proxy_samples=proxy_samples)))


def layerwise_vector(
    *, num_envs: int, task: str | Task, budget: str | Sequence[str] | None = None, proxy_samples: int | None = None
) -> LayerwiseVectorEnv:
    """`gym.make_vec("autoprune/Layerwise-v0", num_envs=64, task="digits", budget="macs:0.5")`"""
    prepared = with_defaults(task, budget=budget, proxy_samples=proxy_samples)
    return LayerwiseVectorEnv(num_envs=num_envs, **_parts(prepared))


def one_shot(
    *,
    task: str | Task,
    budget: str | Sequence[str] | None = None,
    proxy_samples: int | None = None,
    correction: bool = False,
    max_log_correction: float = 1.5,
) -> OneShotEnv:
    """`gym.make("autoprune/OneShot-v0", task="digits", budget="macs:0.5")`

    correction: actions correct the uniform plan, instead of being densities; max_log_correction: how far (OneShotEnv).
    """
    prepared = with_defaults(task, budget=budget, proxy_samples=proxy_samples)
    return OneShotEnv(
        prior=_uniform(prepared) if correction else None, max_log_correction=max_log_correction, **_parts(prepared)
    )


def one_shot_vector(
    *,
    num_envs: int,
    task: str | Task,
    budget: str | Sequence[str] | None = None,
    proxy_samples: int | None = None,
    correction: bool = False,
    max_log_correction: float = 1.5,
) -> OneShotVectorEnv:
    """`gym.make_vec("autoprune/OneShot-v0", num_envs=64, task="digits", budget="macs:0.5")`"""
    prepared = with_defaults(task, budget=budget, proxy_samples=proxy_samples)
    prior = _uniform(prepared) if correction else None
    return OneShotVectorEnv(num_envs=num_envs, prior=prior, max_log_correction=max_log_correction, **_parts(prepared))


def edit(
    *,
    task: str | Task,
    budget: str | Sequence[str] | None = None,
    proxy_samples: int | None = None,
    edits: int = 3,
    max_log_correction: float = 1.0,
    length: int = 1,
) -> EditEnv:
    """`gym.make("autoprune/Edit-v0", task="digits", budget="macs:0.5")`

    It begins at the uniform plan. edits: groups that an action changes at most; max_log_correction and length: see
    Editing.
    """
    prepared = with_defaults(task, budget=budget, proxy_samples=proxy_samples)
    editing = _editing(prepared, edits=edits, max_log_correction=max_log_correction, length=length)
    return EditEnv(editing, evaluate=prepared.objective.evaluate, features=prepared.features)


def edit_vector(
    *,
    num_envs: int,
    task: str | Task,
    budget: str | Sequence[str] | None = None,
    proxy_samples: int | None = None,
    edits: int = 3,
    max_log_correction: float = 1.0,
    length: int = 1,
) -> EditVectorEnv:
    """`gym.make_vec("autoprune/Edit-v0", num_envs=64, task="digits", budget="macs:0.5")`"""
    prepared = with_defaults(task, budget=budget, proxy_samples=proxy_samples)
    editing = _editing(prepared, edits=edits, max_log_correction=max_log_correction, length=length)
    return EditVectorEnv(editing, num_envs=num_envs, evaluate=prepared.objective.evaluate, features=prepared.features)


class _Parts(TypedDict):
    structure: Structure
    projector: Projector
    evaluate: Evaluate
    features: FloatArray


def _parts(prepared: Prepared) -> _Parts:
    """What every environment is made of."""
    return {
        "structure": prepared.structure,
        "projector": prepared.projector,
        "evaluate": prepared.objective.evaluate,
        "features": prepared.features,
    }


def _uniform(prepared: Prepared) -> IntArray:
    return prepared.projector.project(np.ones(len(prepared.structure.groups)))


def _editing(prepared: Prepared, *, edits: int, max_log_correction: float, length: int) -> Editing:
    """From the uniform plan, which is evaluated."""
    (start,) = prepared.objective.evaluate([prepared.structure.plan(_uniform(prepared))])
    edits = min(edits, len(prepared.structure.groups))
    return Editing(
        prepared.structure, prepared.projector, start, edits=edits, max_log_correction=max_log_correction, length=length
    )
