"""LeGR, learned global ranking (arXiv 1904.12368): a scale and a shift per group, under which units are ranked."""

from collections import deque
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray

from autoprune.cost.model import FloatArray
from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem, best_plan
from autoprune.ranges import Count, Positive, Share, checked
from autoprune.search.global_ranking import best_units, unit_scores

FADES = 1.25  # searches, after which steps would be 0, as in the published code


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """What makes units of different groups comparable: they are ranked by scale · score + shift."""

    scale: FloatArray
    """[groups], above 0."""
    shift: FloatArray
    """[groups]"""


Population = Annotated[int, Ge(2)]


@checked
def search(
    problem: Problem, *, rng: np.random.Generator, population: Population, sample: Count, share: Share, sigma: Positive
) -> PruningPlan:
    """The best plan of regularised evolution over lines; the first is the global ranking by the group's mean score.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        rng: Draws all that is random in the search.
        population: So many lines are drawn at random first, and are alive after that; the oldest makes room.
        sample: So many of them are drawn, and the best of these is the parent.
        share: Of the groups, whose lines a child changes.
        sigma: Of the logarithms of scales; shifts are as far apart as the group's scores.
    """
    scores = unit_scores(problem, scale="mean")
    spread, evaluations = _spread(scores), problem.objective.left
    alive: deque[tuple[float, Lines]] = deque(maxlen=population)
    lines, number = Lines(np.ones(len(scores)), np.zeros(len(scores))), 0
    same, everywhere = lines, np.ones(len(scores), bool)
    try:
        while True:
            ranked = [scale * v + shift for v, scale, shift in zip(scores, lines.scale, lines.shift, strict=True)]
            plan = problem.structure.plan(best_units(problem.projector, ranked))
            alive.append((problem.objective.evaluate([plan])[0].reward, lines))
            number += 1
            if number < population:
                lines = _changed(same, where=everywhere, sigma=sigma, spread=spread, rng=rng)
                continue
            parent = max((alive[int(i)] for i in rng.integers(population, size=sample)), key=lambda one: one[0])[1]
            where = np.zeros(len(scores), bool)
            where[rng.choice(len(scores), max(1, int(share * len(scores))), replace=False)] = True
            fading = 1 - number / (FADES * evaluations)
            lines = _changed(parent, where=where, sigma=sigma * fading, spread=spread, rng=rng)
    except EvaluationsSpent:
        return best_plan(problem)


def _changed(
    lines: Lines, *, where: NDArray[np.bool_], sigma: float, spread: FloatArray, rng: np.random.Generator
) -> Lines:
    return Lines(
        lines.scale * np.where(where, np.exp(rng.normal(0, sigma, len(spread))), 1.0),
        lines.shift + np.where(where, rng.normal(0, 1, len(spread)) * spread, 0.0),
    )


def _spread(scores: list[FloatArray]) -> FloatArray:
    """The standard deviation of every group's scores, of groups of one unit that of all such: [groups]."""
    alone = [float(values[0]) for values in scores if len(values) == 1]
    return np.array([np.std(alone) if len(values) == 1 else np.std(values) for values in scores])
