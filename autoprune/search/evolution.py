"""Evolution by level switches, EvoPress's search (arXiv 2410.14649): one parent, and offspring that keep the budget.

A switch takes from one group and gives to another what that is worth. A generation's offspring are one batch for the
objective, so that `evaluation.race` selects among them in stages, on growing parts of the samples. The parent is in
that race, and who leaves it early cannot succeed it.
"""

import numpy as np

from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.plan import PruningPlan
from autoprune.prior.level_switches import Switch, mutated
from autoprune.prior.starts import Start, first_plan
from autoprune.problem.problem import Problem, best_plan
from autoprune.ranges import Count, Share, checked


@checked
def search(
    problem: Problem, *, rng: np.random.Generator, start: Start, offspring: Count, switches: Count, step: Share
) -> PruningPlan:
    """The best plan of as many generations as there are evaluations; each one's parent is the best plan so far.

    No plan is asked for twice, unless ATTEMPTS more switches find none.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        rng: Draws all that is random in the search.
        start: The first parent; what its evaluations cost is charged.
        offspring: Plans of a generation, at least 1.
        switches: By how many an offspring differs from its parent at most; fewer are more likely, as in the paper.
        step: How much of a group's units changes hands at once (Switch).
    """
    switch = Switch(problem.projector, step)
    try:
        first = first_plan(problem, start=start)
        visited = {first.kept}
        while True:
            elite = first if problem.objective.best is None else problem.objective.best.plan
            parent, plans = np.array(elite.kept, np.int64), list[PruningPlan]()
            for _ in range(offspring):
                kept = mutated(parent, switch, visited, switches=switches, rng=rng)
                plans.append(problem.structure.plan(kept))
                visited.add(plans[-1].kept)
            problem.objective.evaluate(plans)
    except EvaluationsSpent:
        return best_plan(problem)
