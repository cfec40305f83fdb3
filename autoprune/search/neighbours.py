"""Plans near a plan."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from autoprune.agent.critic_search import Near
from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.search.evolution import ATTEMPTS, Switch, mutated
from autoprune.structure.groups import IntArray

SWITCHED = (0.06, 0.12, 0.25)  # shares of a group's units
MOST_SWITCHES = 3
DRAWS = 5  # at random, to come to a plan that was not asked for already


def log_midpoint_target(projector: Projector, kept: IntArray) -> FloatArray:
    """Densities that project onto the filled plan kept [groups], far from those that project onto others: [groups].

    A group's wish is in the middle, by ratio, between its level and the next one. So noise on log-densities moves fine
    levels by its size, and moves a block that is whole or gone, or a matrix that is dense or 2:4, now and then.
    """
    targets = [_central(levels, int(k)) for levels, k in zip(projector.levels, kept, strict=True)]
    wish: FloatArray = np.array(targets) / projector.units
    return wish


def random_neighbour(kept: IntArray, switch: Switch, rng: np.random.Generator) -> IntArray:
    """Another filled plan, one level switch away; more, where that gives the same plan, and ATTEMPTS at most."""
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
) -> Near:
    """A few level switches away, as evolution's offspring are: the budget is kept, and the other groups stay.

    plans_of and action_of: from actions to plans [many, groups], and back.
    """
    switches = [Switch(projector, step) for step in SWITCHED]

    def near(actions: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        moved = [
            mutated(plan, switches[rng.integers(len(switches))], (), switches=MOST_SWITCHES, rng=rng)
            for plan in plans_of(actions)
        ]
        return action_of(np.array(moved))

    return near


def _central(levels: IntArray, kept: int) -> float:
    """Units, above 0: the geometric middle of `kept` and the level above, which continues the levels after the last."""
    place = int(levels.searchsorted(kept))
    if kept == 0:
        return float(levels[1]) / math.sqrt(2)
    if place + 1 < len(levels):
        return math.sqrt(kept * int(levels[place + 1]))
    below = int(levels[place - 1]) if place else 0
    return kept * math.sqrt(kept / below if below else 2.0)
