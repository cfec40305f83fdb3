"""Environments from a task and a budget, for `gymnasium.make`; the settings not named here are the main job's own."""

from functools import partial

import numpy as np

from autoprune.env.features import features_of
from autoprune.env.layerwise import LayerwiseEnv
from autoprune.env.one_shot import OneShotEnv
from autoprune.evaluation import judge, reward
from autoprune.evaluation.prepare import Prepared, prepare
from autoprune.evaluation.repair import BatchNormRepair
from autoprune.importance.magnitude import magnitude
from autoprune.seeding import torch_generator
from autoprune.task.shipped import shipped_task
from autoprune.task.task import Task


def layerwise(*, task: str | Task, budget: str | None = None, proxy_samples: int | None = None) -> LayerwiseEnv:
    """`gym.make("autoprune/Layerwise-v0", task="digits", budget="macs:0.5")`

    task: a shipped task's name or a Task of your own. proxy_samples: of the search role; None: half, at most 500.
    """
    prepared = _prepared(task, budget, proxy_samples)
    return LayerwiseEnv(
        prepared.structure,
        projector=prepared.projector,
        evaluate=prepared.objective.evaluate,
        features=features_of(prepared),
    )


def one_shot(
    *,
    task: str | Task,
    budget: str | None = None,
    proxy_samples: int | None = None,
    correction: bool = False,
    reach: float = 1.5,
) -> OneShotEnv:
    """`gym.make("autoprune/OneShot-v0", task="digits", budget="macs:0.5")`

    correction: actions correct the uniform plan, instead of being densities; reach: how far (OneShotEnv).
    """
    prepared = _prepared(task, budget, proxy_samples)
    projector = prepared.projector
    return OneShotEnv(
        prepared.structure,
        projector=projector,
        evaluate=prepared.objective.evaluate,
        features=features_of(prepared),
        prior=projector.project(np.ones(len(prepared.structure.groups))) if correction else None,
        reach=reach,
    )


def _prepared(task: str | Task, budget: str | None, proxy_samples: int | None) -> Prepared:
    task = shipped_task(task) if isinstance(task, str) else task
    return prepare(
        task,
        budget=budget,
        importance=partial(magnitude, order=1, read=False),
        repair=BatchNormRepair(),
        score=judge.kl,
        reward=reward.under_budget,
        round_to=1,
        min_units=1,
        proxy_samples=proxy_samples,
        batch_size=500,
        precision="auto",
        generator=torch_generator(0, "importance"),
    )
