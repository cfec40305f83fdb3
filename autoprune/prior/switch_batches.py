"""Level switches of many plans at once: what `Switch` does to one plan, where a model ranks hundreds of neighbours."""

from collections.abc import Sequence

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.structure.groups import IntArray


def switched_neighbours(
    parents: IntArray, projector: Projector, *, shares: Sequence[float], most: int, rng: np.random.Generator
) -> IntArray:
    """Returns filled plans a few switches from their parents [plans, groups].

    Args:
        parents: Plans inside the budget, units kept [plans, groups].
        projector: Holds the budget.
        shares: Of a group's units that change hands at once, in (0, 1]; each plan's is drawn.
        most: Switches of one plan at most; fewer are likelier.
        rng: Draws the switches.
    """
    moved = np.array(parents, np.int64)
    steps = np.maximum(1, rng.choice(np.asarray(shares), (len(moved), 1)) * projector.units)
    switches = rng.integers(1, most + 1, (len(moved), 2)).min(axis=1)
    for done in range(int(switches.max(initial=0))):
        rows = np.flatnonzero(switches > done)
        moved[rows] = switched(moved[rows], projector, steps[rows], rng)
    return projector.fill(moved, moved + rng.random(moved.shape))  # the rest goes to nobody in particular


def switched(kept: IntArray, projector: Projector, steps: FloatArray, rng: np.random.Generator) -> IntArray:
    """Returns plans in which groups have changed hands, as one call of `Switch` leaves them; they are not filled.

    Args:
        kept: Plans inside the budget, units kept [plans, groups].
        projector: Holds the budget.
        steps: Units that change hands at once [plans, groups].
        rng: Draws the order in which groups take and give.
    """
    rows, columns = np.arange(len(kept)), np.arange(kept.shape[1])
    order = rng.permuted(np.tile(columns, (len(kept), 1)), axis=1)
    growing = kept < projector.units
    taker = order[rows, growing[rows[:, None], order].argmax(axis=1)]
    moved, last = _given(kept, projector, steps, order, taker)
    gave = last >= 0
    moved[gave, last[gave]] = _raised(moved[gave], projector, steps[gave], last[gave], most=kept[gave, last[gave]])
    following = projector.next_levels(moved)[rows, last]
    whole = np.flatnonzero(gave & (following == kept[rows, last]))  # what gave a level that cannot be divided
    given = moved < kept
    given[whole, last[whole]] = True
    for turn in range(kept.shape[1]):
        other = order[whole, turn]
        open_ = growing[whole, other] & (other != taker[whole]) & ~given[whole, other]
        plans, groups = whole[open_], other[open_]
        moved[plans, groups] = _raised(moved[plans], projector, steps[plans], groups)
    return moved


def _given(
    kept: IntArray, projector: Projector, steps: FloatArray, order: IntArray, taker: IntArray
) -> tuple[IntArray, IntArray]:
    """The plans once enough was given for the taker to grow by a level, and who gave last; −1: nobody had to.

    A plan in which nothing can change hands is as it was. Groups give in turn, in the reverse order.
    """
    moved, last, turn = kept.copy(), np.full(len(kept), -1), np.zeros(len(kept), np.int64)
    waiting = np.flatnonzero((kept < projector.units).any(axis=1))
    columns = np.arange(kept.shape[1])
    while len(waiting):
        raised = _raised(moved[waiting], projector, steps[waiting], taker[waiting])
        grown = raised > kept[waiting, taker[waiting]]
        moved[waiting[grown], taker[waiting[grown]]] = raised[grown]
        waiting = waiting[~grown]
        able = (moved[waiting] > projector.floor) & (columns != taker[waiting, None])
        nobody = ~able.any(axis=1)
        moved[waiting[nobody]], last[waiting[nobody]] = kept[waiting[nobody]], -1
        waiting, able = waiting[~nobody], able[~nobody]
        at = (turn[waiting, None] + columns) % len(columns)
        givers = np.take_along_axis(order[waiting, ::-1], at, axis=1)
        first = np.take_along_axis(able, givers, axis=1).argmax(axis=1)
        last[waiting] = giver = givers[np.arange(len(waiting)), first]
        turn[waiting] += first + 1
        less = moved[waiting, giver] - steps[waiting, giver]
        moved[waiting, giver] = projector.levels_below(less, giver)
    return moved, last


def _raised(
    kept: IntArray, projector: Projector, steps: FloatArray, groups: IntArray, *, most: IntArray | None = None
) -> IntArray:
    """The highest level of one group of each plan that fits, its step, or a level, above what it keeps at most [plans].

    most: nor above so many units.
    """
    rows = np.arange(len(kept))
    above = projector.levels_below(kept[rows, groups] + steps[rows, groups], groups)
    highest = np.maximum(above, projector.next_levels(kept)[rows, groups])
    return projector.highest_fitting(kept, groups, highest if most is None else np.minimum(highest, most))
