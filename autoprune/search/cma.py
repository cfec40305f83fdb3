"""CMA-ES (Hansen, arXiv 1604.00772) over the logarithms of densities, by the `cmaes` package."""

from typing import Annotated

import numpy as np
from annotated_types import Ge

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import WIDEST_GROUP, Projector
from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.plan import PruningPlan
from autoprune.prior.level_switches import log_midpoint_target
from autoprune.prior.starts import Start, first_plan
from autoprune.problem.problem import Problem, best_plan
from autoprune.ranges import Positive, checked
from autoprune.structure.groups import IntArray

Population = Annotated[int, Ge(4)]


@checked
def search(
    problem: Problem, *, rng: np.random.Generator, start: Start, sigma: Positive, population: Population | None
) -> PruningPlan:
    """The best plan of as many generations as there are evaluations; a generation is one batch for the objective.

    After a generation without a new plan, or where the package says that it has converged, it begins anew around the
    best plan. Raises ImportError without the extra `search`, before anything is paid for.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        rng: Draws all that is random in the search.
        start: The first mean; what its evaluations cost is charged.
        sigma: Of log-densities, at first.
        population: Of a generation; None is 4 + 3 ln groups.
    """
    try:
        from cmaes import CMA
    except ImportError as error:
        raise ImportError("agent=cmaes needs the extra `search`: pip install 'autoprune[search]'") from error
    projector, visited = problem.projector, set[PruningPlan]()
    try:
        kept = np.array(first_plan(problem, start=start).kept, np.int64)
        while True:
            mean, seed = np.log(log_midpoint_target(projector, kept)), int(rng.integers(2**31))
            optimizer, fresh = CMA(mean=mean, sigma=sigma, population_size=population, seed=seed), True
            while fresh and not optimizer.should_stop():
                points = [optimizer.ask() for _ in range(optimizer.population_size)]
                plans = [problem.structure.plan(_projected(projector, point)) for point in points]
                fresh = not visited.issuperset(plans)
                visited.update(plans)
                outcomes = problem.objective.evaluate(plans)
                optimizer.tell([(point, -outcome.reward) for point, outcome in zip(points, outcomes, strict=True)])
            kept = np.array(best_plan(problem).kept, np.int64)
    except EvaluationsSpent:
        return best_plan(problem)


def _projected(projector: Projector, logarithms: FloatArray) -> IntArray:
    """The filled plan of densities whose logarithms may be any, [groups] → kept [groups]."""
    return projector.project(np.exp(np.maximum(logarithms - logarithms.max(), -np.log(WIDEST_GROUP))))
