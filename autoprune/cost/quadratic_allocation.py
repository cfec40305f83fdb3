"""BatchAllocator for costs that are quadratic in the kept units and never fall: how much fits is a root, not a search.

With all groups but g given, cost = square·k² + slope·k + rest. Earlier groups are decided and change the slope only
where they meet g in a layer; later ones stand at their floor, or whole. So a step needs two running totals, the slopes
of one group, and one look into a table of levels.
"""

import math
from typing import Any

import numpy as np

from autoprune.cost.group_steps import GroupStep, GroupSteps, StepLevels
from autoprune.cost.model import FloatArray
from autoprune.structure.groups import IntArray

EXACT = 2.0**51  # costs below it, and sums of a few of them, are integers without rounding in float64


class QuadraticAllocator:
    """One episode, exact in Python's integers."""

    def __init__(self, turns: GroupSteps) -> None:
        self._start = turns.costs
        self._turns = [_plain(turn) for turn in turns.groups]
        self.kept = [0] * len(self._turns)
        self.restart()

    def restart(self) -> None:
        self.group, self.costs = 0, self._start
        self._arrive()

    def decide(self, wish: float) -> int:
        least, most = self.interval
        wish = min(max(wish, least), most)
        try:
            kept: int = self._nearest[math.ceil(2 * wish)]
        except ValueError:
            raise ValueError(f"a wish must be a number of units, got {wish}") from None
        self.kept[self.group] = kept
        own = self._square * kept
        self.costs = (self._rests[0] + kept * (own + self._slopes[0]), self._rests[1] + kept * (own + self._slopes[1]))
        self.group += 1
        if self.group < len(self._turns):
            self._arrive()
        return kept

    def _arrive(self) -> None:
        square, low, high, earlier, floor, whole, limit, under, fitting, exceeding, nearest = self._turns[self.group]
        kept = self.kept
        for index, weight in earlier:
            more = weight * kept[index]
            low += more
            high += more
        rest = self.costs[0] - floor * (square * floor + low)
        rest_whole = self.costs[1] - whole * (square * whole + high)
        most = fitting[_root(square, low, limit - rest, whole)]
        least = exceeding[_root(square, high, under - rest_whole, whole)]
        self.interval = (least if least < most else most, most)
        self._square, self._slopes, self._rests, self._nearest = square, (low, high), (rest, rest_whole), nearest


def _plain(turn: GroupStep) -> tuple[Any, ...]:
    """What is unpacked at every step: faster than attributes, and lists of integers faster than arrays."""
    earlier = tuple(zip(turn.earlier, turn.weights, strict=True))
    levels = turn.levels
    tables = (levels.fitting.tolist(), levels.exceeding.tolist(), levels.nearest.tolist())
    return turn.square, *turn.slopes, earlier, *turn.ends, *turn.limits, *tables


def _root(square: int, slope: int, room: int, units: int) -> int:
    """The most k in [0, units] with square·k² + slope·k ≤ room; 0 where there is none."""
    if room <= 0:
        return 0
    k = (math.isqrt(slope * slope + 4 * square * room) - slope) // (2 * square) if square else room // slope
    return k if k < units else units


class QuadraticBatchAllocator:
    """Many episodes in lockstep, in float64 that holds whole numbers below EXACT; pairs are rows [2, episodes]."""

    def __init__(self, turns: GroupSteps, *, episodes: int) -> None:
        self._start = _pair(turns.costs, episodes)
        self._limits, self._none = _pair(turns.groups[0].limits, episodes), np.zeros((2, episodes))
        levels = {turn.levels: _ArrayLevels(turn.levels, episodes) for turn in turns.groups}
        self._turns = [_ArrayTurn(turn, levels[turn.levels], len(turns.groups)) for turn in turns.groups]
        self._kept = np.ones((len(self._turns) + 1, episodes))  # the last row stays 1: it carries the constants
        self.restart()

    @property
    def kept(self) -> IntArray:
        return self._kept[:-1].T.astype(np.int64)

    def restart(self) -> None:
        self.group, self.costs = 0, self._start
        self._arrive()

    def decide(self, wish: FloatArray) -> IntArray:
        if math.isnan(wish.dot(wish)):
            raise ValueError(f"wishes must be numbers of units, got {wish}")
        turn, interval, row = self._turn, self.interval, self._kept[self.group]
        place = np.maximum(wish, interval[0])
        np.minimum(place, interval[1], out=place)
        place += place
        kept: IntArray = turn.levels.nearest.take(np.ceil(place, out=place).astype(np.intp))
        row[:] = kept
        self.costs = (self._slope + turn.square * row if turn.square else self._slope) * row
        self.costs += self._limits
        self.costs -= self._room
        self.group += 1
        if self.group < len(self._turns):
            self._arrive()
        return kept

    def _arrive(self) -> None:
        turn = self._turn = self._turns[self.group]
        terms = turn.weights.dot(self._kept.take(turn.earlier, axis=0))
        slope, room = terms[:2], terms[2:]
        room -= self.costs
        k = _roots(turn.square, slope, np.maximum(room, self._none), turn.levels.units)
        levels = turn.levels.table.take(k.astype(np.intp) + turn.levels.rows)
        np.minimum(levels[1], levels[0], out=levels[1])
        self.interval, self._slope, self._room = levels[::-1], slope, room


class _ArrayTurn:
    """A turn as arrays.

    weights [4, earlier + 1]: times what the earlier groups keep, and 1, these are both slopes, and the room under both
    limits but for the costs so far.
    """

    __slots__ = ("earlier", "levels", "square", "weights")

    def __init__(self, turn: GroupStep, levels: "_ArrayLevels", groups: int) -> None:
        self.square, self.levels = float(turn.square), levels
        self.earlier = np.array([*turn.earlier, groups], np.intp)
        slopes = np.array([[*turn.weights, slope] for slope in turn.slopes], np.float64)
        # room = limit - rest, where rest = cost with the group at its end - (square * end + slope) * end
        ends = np.array(turn.ends, np.float64)
        rooms = slopes * ends[:, None]
        rooms[:, -1] += turn.limits + turn.square * ends**2
        self.weights = np.concatenate([slopes, rooms])


class _ArrayLevels:
    """Levels in the shapes that they are used in, as broadcasting takes longer than the arithmetic.

    table: fitting, and behind it exceeding; rows [2, episodes]: where each begins.
    """

    __slots__ = ("nearest", "rows", "table", "units")

    def __init__(self, levels: StepLevels, episodes: int) -> None:
        size = len(levels.fitting)
        self.units = np.full((2, episodes), size - 1.0)
        self.table = np.concatenate([levels.fitting, levels.exceeding]).astype(np.float64)
        self.rows = np.repeat([[0], [size]], episodes, axis=1)
        self.nearest = levels.nearest


def _roots(square: float, slope: FloatArray, room: FloatArray, units: FloatArray) -> FloatArray:
    """_root of rows, with room ≥ 0; what is behind the point is left to be cut off."""
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


def _pair(values: tuple[int, int], episodes: int) -> FloatArray:
    return np.repeat(np.array(values, np.float64)[:, None], episodes, axis=1)
