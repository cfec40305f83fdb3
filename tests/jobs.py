"""Whole jobs on tiny tasks."""

from functools import partial
from pathlib import Path
from typing import Any

from autoprune.pipeline import Job
from autoprune.records import Ledgers
from autoprune.recover.fine_tune import fine_tune
from autoprune.runs import RunFolder
from autoprune.search import random_search as random
from autoprune.tracking import NoTracker
from tests.tasks import prepared

RECOVER = partial(
    fine_tune, steps=5, learning_rate=0.01, weight_decay=0.0, distillation=0.5, temperature=2.0, bf16=False
)


def job(folder: Path, *, task: Any, search: Any = None, **changes: Any) -> Job:
    settings: dict[str, Any] = {"agent": "random", "evaluations": 15, "seed": 0, "tracker": NoTracker()}
    run = RunFolder.create(folder)
    problem = changes.pop("problem", None) or prepared(task, proxy_samples=40)
    return Job(
        problem,
        search=search or partial(random.search, least_density=0.2),
        recover=RECOVER,
        run=run,
        ledgers=Ledgers.of(run),
        **(settings | changes),
    )
