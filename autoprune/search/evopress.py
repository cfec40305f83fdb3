"""EvoPress (arXiv 2410.14649) as its scripts run it: many offspring on a few tokens, few on many, drawn anew each time.

It differs from `evolution` in how plans are judged: the first parent is the best of random plans on one batch, every
stage of a generation reads batches that are drawn from the proxy for it, and how many go on is fixed.
"""

from collections.abc import Sequence

import numpy as np

from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.evaluation.race import Stage
from autoprune.plan import PruningPlan
from autoprune.prior.level_switches import Switch, mutated
from autoprune.prior.uniform_plan import uniform_plan
from autoprune.problem.problem import Problem, best_plan
from autoprune.ranges import Count, Natural, Share, checked


@checked
def search(
    problem: Problem,
    *,
    rng: np.random.Generator,
    first_plans: Natural,
    offspring: Count,
    stages: Sequence[tuple[Share, Count]],
    switches: Count,
    step: Share,
) -> PruningPlan:
    """The best plan that was judged on the whole proxy, of as many generations as there are evaluations.

    Every plan is charged once, on however much of the proxy it is judged. `evaluation.race` is not used.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        rng: Draws all that is random in the search.
        first_plans: Random plans, judged on one batch, of which the best is the first parent; 0: the uniform plan is.
        offspring: Of a generation.
        stages: Of each, the share of the proxy that it reads, rising to 1, and how many plans go on, falling to 1. The
            parent joins the last one.
        switches: By how many an offspring differs from its parent at most; fewer are more likely.
        step: How much of a group's units changes hands at once (Switch).

    Raises:
        ValueError: The stages do not end with one plan on the whole proxy.
    """
    batches = problem.objective.uncharged.batches
    parts = _parts(stages, batches)
    switch, structure = Switch(problem.projector, step), problem.structure
    try:
        drawn = [structure.plan(_random(problem, rng)) for _ in range(first_plans)]
        drawn = list(dict.fromkeys(drawn)) or [uniform_plan(structure, problem.projector)]
        first = [Stage(_batches(1, batches, rng), 1), Stage(range(batches), 1)]
        outcomes = problem.objective.select(drawn, first)
        visited = {plan.kept for plan in drawn}
        parent = max(outcomes, key=lambda outcome: (outcome.whole, outcome.reward)).plan
        while True:
            elite = parent if problem.objective.best is None else problem.objective.best.plan
            plans = []
            for _ in range(offspring):
                kept = mutated(np.array(elite.kept, np.int64), switch, visited, switches=switches, rng=rng)
                plans.append(structure.plan(kept))
                visited.add(plans[-1].kept)
            minibatches = [Stage(_batches(number, batches, rng), stay) for number, stay in parts]
            problem.objective.select(plans, minibatches)
    except EvaluationsSpent:
        return best_plan(problem)


def _parts(stages: Sequence[tuple[float, int]], batches: int) -> list[tuple[int, int]]:
    """Of every stage, how many batches it reads and how many plans go on."""
    shares, survivors = ([stage[at] for stage in stages] for at in (0, 1))
    falling = sorted(survivors, reverse=True)
    if not stages or shares != sorted(shares) or shares[-1] != 1 or survivors != falling or survivors[-1] != 1:
        raise ValueError(
            "agent.stages are [share of the proxy, plans that go on], shares rising and plans falling to 1, such as "
            f"[[0.25, 4], [1, 1]]; got {[list(stage) for stage in stages]}"
        )
    return [(max(1, round(share * batches)), stay) for share, stay in stages]


def _batches(number: int, of: int, rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(sorted(rng.choice(of, number, replace=False).tolist()))


def _random(problem: Problem, rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A filled plan, its densities drawn uniformly; of whole blocks, any that fit are alike to it."""
    return problem.projector.project(rng.uniform(1e-3, 1, len(problem.structure.groups)))
