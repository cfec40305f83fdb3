"""Where searches begin."""

from typing import Literal

import numpy as np

from autoprune.plan import PruningPlan
from autoprune.search import sensitivity
from autoprune.search.problem import Problem
from autoprune.search.uniform import uniform_plan

Start = Literal["uniform", "sensitivity"]


def first_plan(problem: Problem, *, start: Start, rng: np.random.Generator) -> PruningPlan:
    """The uniform or the sensitivity plan, evaluated; the second costs what sensitivity.price says.

    Raises ValueError, before anything is paid for, where it is neither or there are too few evaluations.
    """
    if start == "sensitivity":
        return sensitivity.search(problem, rng=rng)
    if start != "uniform":
        raise ValueError(f"agent.start must be uniform or sensitivity, got {start!r}")
    plan = uniform_plan(problem.structure, problem.projector)
    problem.objective.evaluate([plan])
    return plan
