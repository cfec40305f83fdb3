"""What deciding one group after the other takes, where the cost is quadratic: prepared once for all episodes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.cost.model import BilinearCost
from autoprune.cost.projection import Projector
from autoprune.cost.quadratic_view import quadratic_cost_view
from autoprune.structure.groups import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class GroupStep:
    """All that deciding one group takes. Pairs are for later groups at their floor, and for later groups whole.

    slopes: with all earlier groups at 0. earlier, weights: what each unit of those groups adds to both slopes. ends:
    this group at its floor, and whole. limits: the budget in whole numbers: `most` must cost ≤ limits[0], less than
    `least` costs ≤ limits[1].
    """

    square: int
    slopes: tuple[int, int]
    earlier: tuple[int, ...]
    weights: tuple[int, ...]
    ends: tuple[int, int]
    limits: tuple[int, int]
    levels: "StepLevels"


@dataclass(frozen=True, slots=True, eq=False)
class StepLevels:
    """A group's levels as tables, by u units; groups with the same levels share them, to stay in the cache.

    fitting [units + 1]: the highest level of at most u units, or the lowest. exceeding [units + 1]: the lowest level of
    more than u, or the highest. nearest [2·units + 1]: to u/2 units, the lower one of two.
    """

    fitting: IntArray
    exceeding: IntArray
    nearest: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class GroupSteps:
    """Every group's turn, and what plans cost when nothing is decided."""

    groups: Sequence[GroupStep]
    costs: tuple[int, int]


def group_steps_of(projector: Projector) -> GroupSteps:
    """Raises TypeError for a cost that is not bilinear in the kept units themselves."""
    cost = projector.budget.cost
    if not isinstance(cost, BilinearCost):
        raise TypeError(f"the cost {cost.name!r} is no BilinearCost, so it has no quadratic form")
    if cost.tables is not None:
        raise TypeError(f"the cost {cost.name!r} looks kept units up in tables, so it is not quadratic in them")
    form, limit = quadratic_cost_view(cost), projector.budget.limit
    turns, known = [], dict[tuple[int, ...], StepLevels]()
    for group, levels in enumerate(projector.levels):
        met = np.flatnonzero(form.cross[group])
        earlier, later = met[met < group], met[met > group]
        row = form.cross[group]
        slopes = [int(form.linear[group] + row[later] @ ends[later]) for ends in (projector.floor, projector.units)]
        turn = GroupStep(
            square=int(form.square[group]),
            slopes=(slopes[0], slopes[1]),
            earlier=tuple(earlier.tolist()),
            weights=tuple(row[earlier].astype(np.int64).tolist()),
            ends=(int(levels[0]), int(levels[-1])),
            limits=(math.floor(limit), math.ceil(limit) - 1),
            levels=known.setdefault(tuple(levels.tolist()), _tables(levels)),
        )
        turns.append(turn)
    return GroupSteps(turns, (int(form(projector.floor)), int(form(projector.units))))


def _tables(levels: IntArray) -> StepLevels:
    at = np.searchsorted(levels, np.arange(levels[-1] + 1), "right")
    return StepLevels(
        fitting=levels[np.maximum(at - 1, 0)],
        exceeding=levels[np.minimum(at, len(levels) - 1)],
        nearest=levels[np.searchsorted(levels[:-1] + levels[1:], np.arange(2 * levels[-1] + 1))],
    )
