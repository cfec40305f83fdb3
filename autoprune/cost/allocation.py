"""Deciding group after group inside a budget: how much of a target can be kept, given what earlier groups keep.

An allocator says what Projector.interval says. For a quadratic cost it knows by two running totals and by the few
groups that each group meets in a layer, so that a step takes as long in a network of 200 groups as in one of 20.
"""

import math
from typing import Protocol

import numpy as np

from autoprune.cost.model import FloatArray, QuadraticCost
from autoprune.cost.projection import Projector, Rounding
from autoprune.structure.groups import IntArray

EXACT = 2.0**51  # costs below it, and sums of a few of them, are integers without rounding in float64


class SequentialAllocator(Protocol):
    """Decides the groups of many episodes in lockstep.

    >>> allocator = allocator_of(projector, episodes=64)
    >>> allocator.decide(np.linspace(0, 16, 64)).shape, allocator.interval.shape
    ((64,), (2, 64))
    """

    group: int
    """The index of the group to decide; the number of groups when all are decided."""
    interval: FloatArray
    """[2, episodes]: the fewest and the most units that it may keep, both are levels: see Projector.interval.

    Where more units may cost less, not every level between them may be kept; `decide` knows.
    """
    costs: FloatArray
    """[2, episodes]: what a plan costs with this and all later groups at their floor, and with all of them whole."""

    @property
    def kept(self) -> IntArray:
        """[episodes, groups]: units kept; those of groups that are not yet decided mean nothing."""
        ...

    def restart(self) -> None:
        """No group is decided."""
        ...

    def decide(self, target: FloatArray) -> IntArray:
        """Keeps the choices nearest to so many units (Projector.choices): target [episodes] → kept [episodes].

        Raises:
            ValueError: A target is NaN.
        """
        ...


def allocator_of(projector: Projector, *, episodes: int) -> SequentialAllocator:
    """The fastest allocator that there is for the budget's cost.

    Args:
        projector: Of the plans that are decided; it holds the budget.
        episodes: Plans that are decided at once, at least 1.

    Raises:
        ValueError: No episode is asked for.
    """
    if episodes < 1:
        raise ValueError(f"at least one episode is needed, got {episodes}")
    cost = projector.budget.cost
    if isinstance(cost, QuadraticCost) and _has_roots(cost, projector):
        return QuadraticAllocator(projector, cost, episodes=episodes)
    return GenericAllocator(projector, episodes=episodes)


def _has_roots(cost: QuadraticCost, projector: Projector) -> bool:
    """Whether roots say how much fits: each unit costs something, none less than nothing, and floats are exact."""
    if isinstance(projector, Rounding) or cost.tables is not None:  # a Rounding lets everything be chosen
        return False
    counts = cost.square + cost.linear + cost.cross.sum(axis=1) > 0  # a group without cost has no root
    return cost.never_falls and bool(counts.all()) and projector.budget.dense + abs(cost.constant) < EXACT


class GenericAllocator:
    """For any cost: asks it for every level of every group."""

    def __init__(self, projector: Projector, *, episodes: int) -> None:
        self._projector, self._episodes = projector, episodes
        self.restart()

    @property
    def kept(self) -> IntArray:
        return self._kept

    def restart(self) -> None:
        self._kept = np.tile(self._projector.units, (self._episodes, 1))
        self.group = 0
        self._arrive()

    def decide(self, target: FloatArray) -> IntArray:
        if np.isnan(target).any():
            raise ValueError(f"targets must be numbers of units, got {target}")
        kept = self._projector.nearest(target, self.group, self._choices)
        self._kept[:, self.group] = kept
        self.group += 1
        self._arrive()
        return kept

    def _arrive(self) -> None:
        projector = self._projector
        undecided = np.arange(len(projector.units)) >= self.group
        extremes = np.where(undecided, np.stack([projector.floor, projector.units])[:, None], self._kept)
        self.costs = projector.budget.cost(extremes)
        if self.group < len(projector.units):
            self._choices = projector.choices(self._kept, self.group)
            self.interval = np.stack(projector.ends(self._choices, self.group)).astype(np.float64)


class QuadraticAllocator:
    """For costs that are quadratic in the kept units and never fall: how much fits is a root, not a search.

    With all groups but g given, cost = square·k² + slope·k + rest. Earlier groups are decided and change the slope only
    where they meet g in a layer; later ones stand at their floor, or whole. So a step needs two running totals, the
    slopes of one group, and one look into a table of levels. Pairs of these two are rows [2, episodes], in float64 that
    holds whole numbers below EXACT.
    """

    def __init__(self, projector: Projector, cost: QuadraticCost, *, episodes: int) -> None:
        limit, groups = projector.budget.limit, len(projector.units)
        limits = np.array(
            [math.floor(limit), math.ceil(limit) - 1.0]
        )  # the most costs at most, below the least at most
        self._limits, self._none = np.repeat(limits[:, None], episodes, axis=1), np.zeros((2, episodes))
        self._start = np.repeat(cost(np.stack([projector.floor, projector.units]))[:, None], episodes, axis=1)
        tables: dict[tuple[int, ...], _Levels] = {}  # groups with the same levels share them, to stay in the cache
        self._steps = []
        for group, levels in enumerate(projector.levels):
            table = tables.setdefault(tuple(levels.tolist()), _Levels(levels, episodes))
            self._steps.append(_Step(projector, cost, group, limits, table))
        self._kept = np.ones((groups + 1, episodes))  # the last row stays 1: it carries the constants
        self.restart()

    @property
    def kept(self) -> IntArray:
        return self._kept[:-1].T.astype(np.int64)

    def restart(self) -> None:
        self.group, self.costs = 0, self._start
        self._arrive()

    def decide(self, target: FloatArray) -> IntArray:
        if math.isnan(target.dot(target)):
            raise ValueError(f"targets must be numbers of units, got {target}")
        step, interval, row = self._step, self.interval, self._kept[self.group]
        halves = np.maximum(target, interval[0])
        np.minimum(halves, interval[1], out=halves)
        halves += halves
        kept: IntArray = step.levels.nearest.take(np.ceil(halves, out=halves).astype(np.intp))
        row[:] = kept
        self.costs = (self._slope + step.square * row if step.square else self._slope) * row
        self.costs += self._limits
        self.costs -= self._room
        self.group += 1
        if self.group < len(self._steps):
            self._arrive()
        return kept

    def _arrive(self) -> None:
        step = self._step = self._steps[self.group]
        terms = step.weights.dot(self._kept.take(step.earlier, axis=0))
        slope, room = terms[:2], terms[2:]
        room -= self.costs
        k = _roots(step.square, slope, np.maximum(room, self._none), step.levels.units)
        levels = step.levels.table.take(k.astype(np.intp) + step.levels.rows)
        np.minimum(levels[1], levels[0], out=levels[1])
        self.interval, self._slope, self._room = levels[::-1], slope, room


class _Step:
    """All that deciding one group takes.

    earlier: the earlier groups that it meets in a layer, and the row of ones. weights [4, earlier]: times what these
    keep, these are both slopes, and the room under both limits but for the costs so far.
    """

    __slots__ = ("earlier", "levels", "square", "weights")

    def __init__(
        self, projector: Projector, cost: QuadraticCost, group: int, limits: FloatArray, levels: "_Levels"
    ) -> None:
        ends, row = np.stack([projector.floor, projector.units]).astype(np.float64), cost.cross[group]
        met = np.flatnonzero(row[:group])
        self.square, self.levels = float(cost.square[group]), levels
        self.earlier = np.append(met, len(row))
        slopes = np.column_stack([[row[met]] * 2, cost.linear[group] + ends[:, group + 1 :] @ row[group + 1 :]])
        # room = limit - rest, where rest = cost with the group at its end - (square * end + slope) * end
        rooms = slopes * ends[:, group, None]
        rooms[:, -1] += limits + self.square * ends[:, group] ** 2
        self.weights = np.concatenate([slopes, rooms])


class _Levels:
    """A group's levels as tables, by u units, in the shapes that they are used in: broadcasting would take longer.

    table: the highest level of at most u units, or the lowest one; behind them the lowest level of more than u, or the
    highest one. rows [2, episodes]: where each begins. nearest [2·units + 1]: to u/2 units, the lower one of two.
    """

    __slots__ = ("nearest", "rows", "table", "units")

    def __init__(self, levels: IntArray, episodes: int) -> None:
        at = np.searchsorted(levels, np.arange(levels[-1] + 1), "right")
        fitting, exceeding = levels[np.maximum(at - 1, 0)], levels[np.minimum(at, len(levels) - 1)]
        self.table = np.concatenate([fitting, exceeding]).astype(np.float64)
        self.rows = np.repeat([[0], [len(at)]], episodes, axis=1)
        self.units = np.full((2, episodes), float(levels[-1]))
        self.nearest = levels[np.searchsorted(levels[:-1] + levels[1:], np.arange(2 * levels[-1] + 1))]


def _roots(square: float, slope: FloatArray, room: FloatArray, units: FloatArray) -> FloatArray:
    """The most k in [0, units] with square·k² + slope·k ≤ room ≥ 0; what is behind the point is left to be cut off."""
    if square == 0:
        k: FloatArray = room / slope
    else:
        k = np.floor(2 * room / (slope + np.sqrt(slope * slope + 4 * square * room)))
        np.minimum(k, units, out=k)
        # The square root is rounded; these comparisons are exact.
        k += (k + 1) * (square * (k + 1) + slope) <= room
        k -= k * (square * k + slope) > room
    np.minimum(k, units, out=k)
    return k
