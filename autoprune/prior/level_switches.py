"""Plans near a plan: level switches, which take from one group and give to another what that is worth."""

import math
from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.prior.switch_batches import switched_neighbours
from autoprune.structure.groups import IntArray

SWITCHED = (0.06, 0.12, 0.25)  # shares of a group's units
MOST_SWITCHES = 3
DRAWS = 5  # at random, to come to a plan that was not asked for already


Kept = tuple[int, ...]
Actions = NDArray[np.float32]
Neighbours = Callable[[Actions, np.random.Generator], Actions]  # executed actions [n, …] → another one near each
ATTEMPTS = 20  # to come from a plan that was asked for already to one that was not


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
    parent: IntArray, switch: Switch, visited: Collection[Kept], *, switches: int, rng: np.random.Generator
) -> IntArray:
    """A filled plan a few switches from its parent; from a known one it goes on, at most ATTEMPTS switches farther.

    Args:
        parent: The plan that is changed, units kept [groups].
        switch: How far one move goes.
        visited: Plans that are not made again.
        switches: How many level switches an offspring differs by at most.
        rng: Draws all that is random in the search.
    """
    kept = parent
    for _ in range(min(rng.integers(1, switches + 1, 2))):
        kept = switch(kept, rng)
    for _ in range(ATTEMPTS):
        kept = switch.projector.fill(kept, kept + rng.random(len(kept)))  # the rest goes to nobody in particular
        if tuple(kept.tolist()) not in visited:
            break
        kept = switch(kept, rng)
    return switch.projector.fill(kept, kept + rng.random(len(kept)))


def log_midpoint_target(projector: Projector, kept: IntArray) -> FloatArray:
    """Densities that project onto the filled plan kept [groups], far from those that project onto others: [groups].

    A group's target is in the middle, by ratio, between its level and the next one. So noise on log-densities moves
    fine levels by its size, and moves a block that is whole or gone, or a matrix that is dense or 2:4, now and then.

    Args:
        projector: Moves plans into the budget.
        kept: Units that each group keeps [..., groups].
    """
    targets = [_central(levels, int(k)) for levels, k in zip(projector.levels, kept, strict=True)]
    density: FloatArray = np.array(targets) / projector.units
    return density


def random_neighbour(kept: IntArray, switch: Switch, rng: np.random.Generator) -> IntArray:
    """Another filled plan, one level switch away; more, where that gives the same plan, and ATTEMPTS at most.

    Args:
        kept: Units that each group keeps [..., groups].
        switch: How far one move goes.
        rng: Draws all that is random in the search.
    """
    moved = kept
    for _ in range(ATTEMPTS):
        moved = switch(moved, rng)
        filled = switch.projector.fill(moved, moved + rng.random(len(moved)))  # the rest goes to nobody in particular
        if (filled != kept).any():
            return filled
    return filled


def switches_near(
    projector: Projector,
    *,
    plans_of: Callable[[NDArray[np.float32]], IntArray],
    action_of: Callable[[IntArray], NDArray[np.float32]],
) -> Neighbours:
    """A few level switches away, as evolution's offspring are: the budget is kept, and the other groups stay.

    plans_of and action_of: from actions to plans [many, groups], and back.

    Args:
        projector: Moves plans into the budget.
        plans_of: Actions [n, action] → kept units [n, groups].
        action_of: Kept units [n, groups] → actions [n, action].
    """

    def near(actions: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        return action_of(
            switched_neighbours(plans_of(actions), projector, shares=SWITCHED, most=MOST_SWITCHES, rng=rng)
        )

    return near


def _central(levels: IntArray, kept: int) -> float:
    """Units, above 0: the geometric middle of `kept` and the level above, which continues the levels after the last."""
    index = int(levels.searchsorted(kept))
    if kept == 0:
        return float(levels[1]) / math.sqrt(2)
    if index + 1 < len(levels):
        return math.sqrt(kept * int(levels[index + 1]))
    below = int(levels[index - 1]) if index else 0
    return kept * math.sqrt(kept / below if below else 2.0)
