"""Evolution by level switches, EvoPress's search (arXiv 2410.14649): one parent, and offspring that keep the budget.

A switch takes from one group and gives to another what that is worth. A generation's offspring are one batch for the
objective, so that `evaluation.race` selects among them in stages, on growing parts of the samples. The parent is in
that race, and who leaves it early cannot succeed it.
"""

from collections.abc import Collection

import numpy as np

from autoprune.cost.projection import Projector
from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem, best_plan
from autoprune.search.prior import Start, first_plan
from autoprune.structure.groups import IntArray

Kept = tuple[int, ...]
ATTEMPTS = 20  # to come from a plan that was asked for already to one that was not


def search(
    problem: Problem, *, rng: np.random.Generator, start: Start, offspring: int, switches: int, step: float
) -> PruningPlan:
    """The best plan of as many generations as there are evaluations; each one's parent is the best plan so far.

    start: the first parent; the sensitivity plan's evaluations are charged. offspring: of a generation. switches: by
    how many an offspring differs from its parent at most; fewer are more likely, as in the paper. step: how much of a
    group's units changes hands at once (Switch). No plan is asked for twice, unless ATTEMPTS more switches find none.
    """
    _check(start, offspring, switches)
    switch = Switch(problem.projector, step)
    try:
        first = first_plan(problem, start=start, rng=rng)
        known = {first.kept}
        while True:
            elite = first if problem.objective.best is None else problem.objective.best.plan
            parent, plans = np.array(elite.kept, np.int64), list[PruningPlan]()
            for _ in range(offspring):
                kept = mutated(parent, switch, known, switches=switches, rng=rng)
                plans.append(problem.structure.plan(kept))
                known.add(plans[-1].kept)
            problem.objective.evaluate(plans)
    except EvaluationsSpent:
        return best_plan(problem)


class Switch:
    """Level switches: from one plan inside the budget to another near it.

    step: the share of a group's units that changes hands at once, in (0, 1]; at least one level does.
    """

    def __init__(self, projector: Projector, step: float) -> None:
        if not 0 < step <= 1:
            raise ValueError(f"agent.step is a share of a group's units, in (0, 1]; got {step}")
        self.projector = projector
        self._step = np.maximum(1, step * projector.units)  # units, [groups]

    def __call__(self, kept: IntArray, rng: np.random.Generator) -> IntArray:
        """One group keeps fewer units and another one more, at about the same cost: kept [groups], not filled.

        Each changes by its step, or by what the other's step is worth where that is less. Where a level of what grows
        costs more than one group gives (a head, a block), more groups give, in turn; where it costs less, more grow.
        A plan in which nothing can change hands is returned as it is.
        """
        order = rng.permutation(len(kept)).tolist()
        growing = [g for g in order if kept[g] < self.projector.units[g]]
        if not growing:
            return kept
        taker, *others = growing
        givers = [g for g in reversed(order) if g != taker and kept[g] > self.projector.floor[g]]
        moved, gave = kept.copy(), list[int]()
        while self._higher(moved, taker) == kept[taker]:
            if not givers:
                return kept
            gave.append(givers.pop(0))
            moved[gave[-1]] = self._lower(moved, gave[-1])
            if moved[gave[-1]] > self.projector.floor[gave[-1]]:
                givers.append(gave[-1])  # once all have given, it is its turn again
        moved[taker] = self._higher(moved, taker)
        if not gave:  # the plan was not filled
            return moved
        moved[gave[-1]] = self._higher(moved, gave[-1], most=kept[gave[-1]])  # what was not needed goes back
        if self.projector.next_levels(moved)[gave[-1]] == kept[gave[-1]]:  # it gave a level, which cannot be divided
            for other in others:
                moved[other] = moved[other] if other in gave else self._higher(moved, other)
        return moved

    def _lower(self, kept: IntArray, group: int) -> int:
        """The highest level of the group that is its step, or a level, below what it keeps."""
        levels = self.projector.levels[group]
        return int(levels[max(0, np.searchsorted(levels, kept[group] - self._step[group], "right") - 1)])

    def _higher(self, kept: IntArray, group: int, *, most: int | None = None) -> int:
        """The highest level of the group that the budget allows, its step, or a level, above what it keeps at most.

        most: nor above so many units.
        """
        levels = self.projector.levels[group]
        following = np.searchsorted(levels, kept[group], "right")
        last = max(following + 1, np.searchsorted(levels, kept[group] + self._step[group], "right"))
        higher = levels[following:last]
        fitting = self.projector.fitting(kept, group, higher if most is None else higher[higher <= most])
        return int(fitting.max(initial=kept[group]))


def mutated(
    parent: IntArray, switch: Switch, known: Collection[Kept], *, switches: int, rng: np.random.Generator
) -> IntArray:
    """A filled plan a few switches from its parent; from a known one it goes on, at most ATTEMPTS switches farther."""
    kept = parent
    for _ in range(min(rng.integers(1, switches + 1, 2))):
        kept = switch(kept, rng)
    for _ in range(ATTEMPTS):
        kept = switch.projector.fill(kept, kept + rng.random(len(kept)))  # the rest goes to nobody in particular
        if tuple(kept.tolist()) not in known:
            break
        kept = switch(kept, rng)
    return switch.projector.fill(kept, kept + rng.random(len(kept)))


def _check(start: str, offspring: int, switches: int) -> None:
    if start not in ("uniform", "sensitivity"):
        raise ValueError(f"agent.start must be uniform or sensitivity, got {start!r}")
    if offspring < 1:
        raise ValueError(f"agent.offspring must be at least 1 plan for a generation, got {offspring}")
    if switches < 1:
        raise ValueError(f"agent.switches must be at least 1, got {switches}")
