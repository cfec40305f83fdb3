"""Searches on SmolLM2-135M that share one preparation: the plan of each, and what it had read when it found it."""

import functools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoprune.evaluation.outcome import Outcome
from autoprune.machine_cache import cache_dir
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem
from autoprune.seeding import numpy_rng
from experiments.configuration import composed, instantiate_part, prepared_by


@dataclass(slots=True)
class Found:
    """A search's best plans in the order in which they came. windows: of tokens, read until then; spent: in the end."""

    best: list[tuple[int, PruningPlan, float]] = field(default_factory=list)  # (windows, plan, score)
    spent: int = 0

    def __call__(self, outcome: Outcome, evaluation: int, phase: str) -> None:
        self.spent += outcome.metrics.samples
        if outcome.feasible and outcome.whole and (not self.best or outcome.score > self.best[-1][2]):
            self.best.append((self.spent, outcome.plan, outcome.score))


@functools.cache
def ready(overrides: tuple[str, ...], *, store: Path | None = None) -> Problem:
    """The task as these overrides of the main job prepare it, once in a process. store: None: the shared one."""
    settings = composed(*overrides)
    settings["evaluation"]["store"] = store or cache_dir()
    return prepared_by(settings)


def searched(problem: Problem, overrides: Sequence[str], *, evaluations: int, seed: int) -> Found:
    """overrides: of the configuration's agent."""
    found = Found()
    search: Any = instantiate_part(composed(*overrides), "agent")
    with tempfile.TemporaryDirectory() as folder:
        limited = problem.limited(evaluations, record=found, seed=seed, folder=Path(folder))
        search(limited, rng=numpy_rng(seed, "search"))
    return found
