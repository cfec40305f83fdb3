"""A task made ready without a configuration: as the main job's own does it."""

from collections.abc import Sequence
from functools import partial

from autoprune.evaluation import judge, reward
from autoprune.evaluation.settings import EvaluationSettings
from autoprune.importance.magnitude import magnitude
from autoprune.problem.prepare import Prepared, prepare
from autoprune.repair.least_squares import LeastSquares
from autoprune.repair.repair import Repair
from autoprune.seeding import torch_generator
from autoprune.task.shipped import shipped_task
from autoprune.task.task import Task


def with_defaults(task: str | Task, *, budget: str | Sequence[str] | None, proxy_samples: int | None) -> Prepared:
    """Ranked by weight norm, repaired by least squares and BatchNorm, judged by KL.

    task: one of one's own, or the name of one that comes along. budget: None for the one that the task suggests.
    """
    return prepare(
        shipped_task(task) if isinstance(task, str) else task,
        budget=budget,
        importance=partial(magnitude, order=1, read=False),
        repair=Repair(batch_norm=True, least_squares=LeastSquares(ridge=0.001, rows=8192)),
        score=judge.kl,
        reward=reward.under_budget,
        round_to=1,
        min_units=1,
        evaluation=EvaluationSettings(proxy_samples=proxy_samples),
        generator=torch_generator(0, "importance"),
    )
