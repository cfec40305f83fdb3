"""Greedy shrinking, NetAdapt's search (arXiv 1804.03230): round by round, the group gives whose loss hurts least."""

import numpy as np

from autoprune.cost.projection import Projector
from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.evaluation.outcome import Outcome
from autoprune.plan import PruningPlan
from autoprune.prior.level_switches import Switch, log_midpoint_target, random_neighbour
from autoprune.problem.problem import Problem, best_plan
from autoprune.ranges import Share, checked
from autoprune.structure.groups import IntArray

LEAST = 1e-12  # of the score; what loses less loses nothing


@checked
def search(problem: Problem, *, rng: np.random.Generator, step: Share) -> PruningPlan:
    """From the dense network, as many rounds as there are evaluations for, and each takes an equal part of the cost.

    In a round every group is offered to shrink until the part is saved, or to its floor; the one that loses least for
    what it saves is taken, which is the paper's choice where all save the part. What rounds of few evaluations leave
    over the budget is taken from all groups alike. Evaluations that are left, fewer than there are groups unless levels
    are coarse, go into level switches of the best plan that change hands of `step` of a group's units.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        rng: Draws all that is random in the search.
        step: The share of a group's units that changes hands, in (0, 1].

    Raises:
        ValueError: There are too few evaluations for one round.
    """
    switch, projector, groups = Switch(problem.projector, step), problem.projector, len(problem.structure.groups)
    if problem.objective.left < groups + 2:
        raise ValueError(
            f"the greedy search needs {groups + 2} evaluations: one for each group, the dense network and the final "
            f"plan; got {problem.objective.left}. Give it more with evaluations=N"
        )
    try:
        kept = _shrunk(problem, rng)
        if float(projector.budget.cost(kept)) > projector.budget.limit:
            kept = projector.project(log_midpoint_target(projector, kept))
            problem.objective.evaluate([problem.structure.plan(kept)])
        while True:
            best = kept if problem.objective.best is None else np.array(problem.objective.best.plan.kept, np.int64)
            problem.objective.evaluate([problem.structure.plan(random_neighbour(best, switch, rng))])
    except EvaluationsSpent:
        return best_plan(problem)


def _shrunk(problem: Problem, rng: np.random.Generator) -> IntArray:
    """The plan after all rounds, [groups]: filled if it is inside the budget."""
    projector, objective = problem.projector, problem.objective
    cost, limit = projector.budget.cost, projector.budget.limit
    now = objective.evaluate([problem.structure.dense])[0]
    while True:
        kept = np.array(now.plan.kept, np.int64)
        over = float(cost(kept)) - limit
        giving = np.flatnonzero(kept > projector.floor)
        rounds = (objective.left - 1) // len(giving) if over > 0 and len(giving) else 0  # one is the final plan's
        if rounds == 0:
            return kept
        target = limit + over * (1 - 1 / rounds)
        offers = [_offer(projector, kept, int(group), target, rng) for group in giving]
        outcomes = objective.evaluate([problem.structure.plan(offer) for offer in offers])
        now = min(outcomes, key=lambda outcome: _hurts(outcome, now, projector))


def _offer(projector: Projector, kept: IntArray, group: int, target: float, rng: np.random.Generator) -> IntArray:
    """The group at its highest level that costs no more than the target, or at its floor; filled inside the budget."""
    below = projector.levels[group][projector.levels[group] < kept[group]]
    fitting = below[projector.budget.cost.along(kept, group, below) <= target]
    offer = kept.copy()
    offer[group] = fitting.max(initial=projector.floor[group])
    if float(projector.budget.cost(offer)) > projector.budget.limit:
        return offer
    return projector.fill(offer, offer + rng.random(len(offer)))  # the rest goes to nobody in particular


def _hurts(outcome: Outcome, before: Outcome, projector: Projector) -> float:
    """What the score loses for a unit of the cost."""
    saved = float(
        projector.budget.cost(np.array(before.plan.kept)) - projector.budget.cost(np.array(outcome.plan.kept))
    )
    return max(LEAST, before.score - outcome.score) / saved if saved > 0 else np.inf
