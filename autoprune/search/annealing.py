"""Simulated annealing (Kirkpatrick et al., Science 1983): level switches, of which worse ones are taken at first."""

import math

import numpy as np

from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.plan import PruningPlan
from autoprune.prior.level_switches import Switch, random_neighbour
from autoprune.prior.starts import Start, first_plan
from autoprune.problem.problem import Problem, best_plan
from autoprune.ranges import Share, checked


@checked
def search(
    problem: Problem, *, rng: np.random.Generator, start: Start, step: Share, first: Share, last: Share
) -> PruningPlan:
    """Returns the best plan of a walk of level switches, as long as there are evaluations.

    A switch that is better is taken. One that is worse by as much as worse ones were on average is taken with a
    probability that falls geometrically from `first` to `last`, so the temperature has the reward's unit.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        rng: Draws all that is random in the search.
        start: The plan that the walk begins at; what its evaluations cost is charged.
        step: The share of a group's units that changes hands, in (0, 1].
        first: That probability at the start, below 1.
        last: That probability at the end, above 0 and at most `first`.
    """
    if not 0 < last <= first < 1:
        raise ValueError(f"agent.first and agent.last must be 0 < last ≤ first < 1, got first={first} and last={last}")
    switch = Switch(problem.projector, step)
    try:
        plan, best = first_plan(problem, start=start), problem.objective.best
        here = np.array(plan.kept if best is None else best.plan.kept, np.int64)
        reward = -math.inf if best is None else best.reward
        losses: list[float] = []
        steps = max(1, problem.objective.left - 1)
        while True:
            likely = first * (last / first) ** ((steps + 1 - problem.objective.left) / steps)
            there = random_neighbour(here, switch, rng)
            outcome = problem.objective.evaluate([problem.structure.plan(there)])[0]
            lost = reward - outcome.reward
            if lost > 0:
                losses.append(lost)
            if lost <= 0 or rng.random() < likely ** (lost / float(np.mean(losses))):
                here, reward = there, outcome.reward
    except EvaluationsSpent:
        return best_plan(problem)
