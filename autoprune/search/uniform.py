"""The same density everywhere, filled to its budget: left-over units go where they fit."""

import numpy as np

from autoprune.cost.projection import Projector
from autoprune.plan import PruningPlan
from autoprune.search.problem import Problem
from autoprune.structure.groups import Structure


def search(problem: Problem, *, rng: np.random.Generator) -> PruningPlan:
    """The uniform plan; costs one evaluation."""
    plan = uniform_plan(problem.structure, problem.projector)
    problem.objective.evaluate([plan])
    return plan


def uniform_plan(structure: Structure, projector: Projector) -> PruningPlan:
    return structure.plan(projector.project(np.ones(len(structure.groups))))
