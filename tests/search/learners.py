"""Agents on problems with known optima, with something for them to see."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.cost.budget import Budget
from autoprune.cost.projection import Projector
from autoprune.problem.group_features import GROUP_FEATURES
from autoprune.problem.problem import Problem
from tests.search.known import KnownProblem


def seen(problem: Problem) -> Problem:
    """The same with features: every group's place, and its units."""
    structure = problem.structure
    features = np.zeros((len(structure.groups), len(GROUP_FEATURES)))
    features[:, GROUP_FEATURES.index("depth")] = np.linspace(0, 1, len(structure.groups))
    features[:, GROUP_FEATURES.index("units")] = np.log10(structure.units)
    return replace(problem, features=features)


def learnable(known: KnownProblem, folder: Path, *, limit: int, seen_by: list[Any] | None = None) -> Problem:
    return seen(known.problem(folder, limit=limit, seen=seen_by))


@dataclass(frozen=True, eq=False)
class KnownUnderBudgets(Problem):
    """A known problem that can be put under other budgets, without a network whose features could be looked at."""

    def under(self, budget: Budget) -> "KnownUnderBudgets":
        return replace(self, projector=Projector(self.structure, budget))


def under_budgets(problem: Problem) -> KnownUnderBudgets:
    return KnownUnderBudgets(**{field.name: getattr(problem, field.name) for field in fields(problem)})
