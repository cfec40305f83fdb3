"""Bayesian optimisation: a model of what plans are worth chooses among level switches near the best ones.

The strongest control of whatever learns a policy: it uses the same model, and has none.
"""

import numpy as np

from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.plan import PruningPlan
from autoprune.prior.starts import Start, prior_of
from autoprune.problem.problem import Problem, best_plan
from autoprune.ranges import Count, NonNegative, checked
from autoprune.search.paid_plans import PaidPlans, log_exhausted


@checked
def search(
    problem: Problem,
    *,
    rng: np.random.Generator,
    start: Start,
    batch: Count,
    candidates_per_evaluation: Count,
    elite: Count,
    kappa: NonNegative,
) -> PruningPlan:
    """Returns the best plan met; no plan is paid for twice, and it ends early where nothing near the best ones is new.

    Args:
        problem: What is searched.
        rng: Draws the candidates.
        start: The plans that it begins with, charged.
        batch: Plans that are evaluated at once, at least 1.
        candidates_per_evaluation: Neighbours that the model ranks, for each plan that is evaluated.
        elite: Of the best plans, whose neighbours are candidates.
        kappa: Standard deviations that are hoped for above the model's mean, at least 0.
    """
    paid, projector = PaidPlans(problem.structure.units), problem.projector
    try:
        prior = prior_of(problem, start=start)
        paid.add([prior.outcome, *prior.others])
        while True:
            best = paid.best(elite, projector)
            kept = paid.neighbours(best, projector, count=batch * candidates_per_evaluation, enough=batch, rng=rng)
            if not len(kept):
                log_exhausted(problem.objective.spent, problem.objective.limit)
                return best_plan(problem)
            if paid.informed:
                kept = kept[paid.model.batch(kept, count=batch, kappa=kappa)]
            paid.add(problem.objective.evaluate([problem.structure.plan(row) for row in kept[:batch]]))
    except EvaluationsSpent:
        return best_plan(problem)
