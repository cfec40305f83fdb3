"""Deciding group after group inside a budget: what of a wish can be met, given what earlier groups keep.

A walk says what Projector.interval says. For a bilinear cost it knows by two running totals and by the few groups that
each group meets in a layer, so that a step takes as long in a network of 200 groups as in one of 20.
"""

import math
from typing import Protocol

import numpy as np

from autoprune.cost.group_steps import group_steps_of
from autoprune.cost.model import BilinearCost, FloatArray
from autoprune.cost.projection import Projector
from autoprune.cost.quadratic_allocation import EXACT, QuadraticAllocator, QuadraticBatchAllocator
from autoprune.cost.quadratic_view import quadratic_cost_view
from autoprune.cost.rounding import Rounding
from autoprune.structure.groups import IntArray


class SequentialAllocator(Protocol):
    """One episode, in plain numbers, which for one episode are much faster than arrays.

    >>> walk = allocator_of(projector)
    >>> while walk.group < len(projector.levels):
    ...     walk.decide(0.5 * projector.units[walk.group])
    >>> walk.kept
    [8, 8, 16]
    """

    @property
    def group(self) -> int:
        """Index of the group to decide; the number of groups when all are decided."""
        ...

    @property
    def interval(self) -> tuple[float, float]:
        """The fewest and the most units that it may keep, both are levels: see Projector.interval.

        Where more units may cost less, not every level between them may be kept; `decide` knows.
        """
        ...

    @property
    def costs(self) -> tuple[float, float]:
        """What a plan costs with this and all later groups at their floor, and with all of them whole."""
        ...

    @property
    def kept(self) -> list[int]:
        """[groups]: units kept; those of groups that are not yet decided mean nothing."""
        ...

    def restart(self) -> None:
        """No group is decided."""
        ...

    def decide(self, wish: float) -> int:
        """Keeps the choice nearest to `wish` units (Projector.choices); says which. ValueError for NaN."""
        ...


class BatchAllocator(Protocol):
    """Many episodes in lockstep; the members are those of Walk with an axis for the episodes.

    >>> walks = batch_allocator_of(projector, episodes=64)
    >>> walks.decide(np.linspace(0, 16, 64)).shape, walks.interval.shape
    ((64,), (2, 64))
    """

    @property
    def group(self) -> int:
        """The same group in all of them."""
        ...

    @property
    def interval(self) -> FloatArray:
        """[2, episodes]: fewest, most."""
        ...

    @property
    def costs(self) -> FloatArray:
        """[2, episodes]: with this and later groups at their floor, whole."""
        ...

    @property
    def kept(self) -> IntArray:
        """[episodes, groups]"""
        ...

    def restart(self) -> None: ...

    def decide(self, wish: FloatArray) -> IntArray:
        """wish [episodes] → kept [episodes]"""
        ...


def allocator_of(projector: Projector) -> SequentialAllocator:
    """The fastest walk there is for the budget's cost."""
    return QuadraticAllocator(group_steps_of(projector)) if _is_quadratic(projector) else GenericAllocator(projector)


def batch_allocator_of(projector: Projector, *, episodes: int) -> BatchAllocator:
    """The same for many episodes in lockstep."""
    if episodes < 1:
        raise ValueError(f"at least one episode is needed, got {episodes}")
    if _is_quadratic(projector):
        return QuadraticBatchAllocator(group_steps_of(projector), episodes=episodes)
    return GenericBatchAllocator(projector, episodes=episodes)


def _is_quadratic(projector: Projector) -> bool:
    """Whether roots say how much fits: each unit costs something, none less than nothing, and floats are exact."""
    cost = projector.budget.cost
    if isinstance(projector, Rounding):  # it lets everything be chosen
        return False
    if not isinstance(cost, BilinearCost) or cost.tables is not None:
        return False
    form = quadratic_cost_view(cost)
    counts = form.square + form.linear + form.cross.sum(axis=1) > 0  # a group without cost has no root
    return form.never_falls and bool(counts.all()) and projector.budget.dense + abs(form.constant) < EXACT


class GenericBatchAllocator:
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

    def decide(self, wish: FloatArray) -> IntArray:
        if np.isnan(wish).any():
            raise ValueError(f"wishes must be numbers of units, got {wish}")
        kept = self._projector.nearest(wish, self.group, self._choices)
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


class GenericAllocator:
    """One episode of the same."""

    def __init__(self, projector: Projector) -> None:
        self._walks = GenericBatchAllocator(projector, episodes=1)

    @property
    def group(self) -> int:
        return self._walks.group

    @property
    def interval(self) -> tuple[float, float]:
        least, most = self._walks.interval[:, 0].tolist()
        return least, most

    @property
    def costs(self) -> tuple[float, float]:
        floor, ceiling = self._walks.costs[:, 0].tolist()
        return floor, ceiling

    @property
    def kept(self) -> list[int]:
        return [int(units) for units in self._walks.kept[0]]

    def restart(self) -> None:
        self._walks.restart()

    def decide(self, wish: float) -> int:
        if math.isnan(wish):
            raise ValueError("a wish must be a number of units, got nan")
        return int(self._walks.decide(np.array([wish]))[0])
