"""Plans near a plan."""

import math

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.search.evolution import ATTEMPTS, Switch
from autoprune.structure.groups import IntArray

DRAWS = 5  # at random, to come to a plan that was not asked for already


def central_wish(projector: Projector, kept: IntArray) -> FloatArray:
    """Densities that project onto the filled plan kept [groups], far from those that project onto others: [groups].

    A group's wish is in the middle, by ratio, between its level and the next one. So noise on log-densities moves fine
    levels by its size, and moves a block that is whole or gone, or a matrix that is dense or 2:4, now and then.
    """
    targets = [_central(levels, int(k)) for levels, k in zip(projector.levels, kept, strict=True)]
    wish: FloatArray = np.array(targets) / projector.units
    return wish


def neighbour(kept: IntArray, switch: Switch, rng: np.random.Generator) -> IntArray:
    """Another filled plan, one level switch away; more, where that gives the same plan, and ATTEMPTS at most."""
    moved = kept
    for _ in range(ATTEMPTS):
        moved = switch(moved, rng)
        filled = switch.projector.fill(moved, moved + rng.random(len(moved)))  # the rest goes to nobody in particular
        if (filled != kept).any():
            return filled
    return filled


def _central(levels: IntArray, kept: int) -> float:
    """Units, above 0: the geometric middle of `kept` and the level above, which continues the levels after the last."""
    place = int(levels.searchsorted(kept))
    if kept == 0:
        return float(levels[1]) / math.sqrt(2)
    if place + 1 < len(levels):
        return math.sqrt(kept * int(levels[place + 1]))
    below = int(levels[place - 1]) if place else 0
    return kept * math.sqrt(kept / below if below else 2.0)
