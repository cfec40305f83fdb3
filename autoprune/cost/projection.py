"""Any wish becomes a plan inside the budget: the one place where budgets are enforced."""

import numpy as np

from autoprune.cost.budget import Budget
from autoprune.cost.model import BilinearCost, FloatArray
from autoprune.cost.quadratic import quadratic_form
from autoprune.structure.groups import IntArray, Structure

BISECTIONS = 50
WIDEST_GROUP = 1e9  # units; a density further below another group's than this is its floor anyway


class Projector:
    """Maps wishes onto plans whose cost is at most the budget, on each group's allowed levels, and tight.

    Whole plans (`project`) are filled: not one more level of any group fits. Layer by layer (`interval`), every step is
    bounded so that the last one meets the budget to within one step of the group that ended it.
    """

    def __init__(self, structure: Structure, budget: Budget) -> None:
        self.budget = budget
        self.units = structure.units
        self.levels = [np.array(group.levels, np.int64) for group in structure.groups]
        self.floor = structure.floor
        # grid[g, u] is the highest level of group g with at most u units; group sizes differ, so rows are padded
        widest = int(self.units.max())
        self._grid = np.stack([_at_most(levels, widest) for levels in self.levels])
        self._following = np.stack([_above(levels, widest) for levels in self.levels])
        self._groups = np.arange(len(self.levels))
        self._form = quadratic_form(budget.cost) if isinstance(budget.cost, BilinearCost) else None

    def project(self, density: FloatArray) -> IntArray:
        """The filled plan whose densities are proportional to the wish: density [..., groups] in (0, 1] → kept."""
        wish = np.asarray(density, np.float64)
        bad = ~(np.isfinite(wish) & (wish > 0))
        if bad.any():
            raise ValueError(f"densities must be finite and positive, got {wish[bad][:3].tolist()}")
        wish = np.maximum(wish, wish.max(axis=-1, keepdims=True) / WIDEST_GROUP)
        flat = wish.reshape(-1, wish.shape[-1]) * self.units
        low = np.zeros(len(flat))  # scale 0 is the floor plan, which is feasible
        high = (self.units / flat).max(axis=1)  # scale at which everything is kept
        cost = self.budget.cost if self._form is None else self._form
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            fits = cost(self._round_down(flat * middle[:, None])) <= self.budget.limit
            low, high = np.where(fits, middle, low), np.where(fits, high, middle)
        target = flat * low[:, None]
        kept = np.stack([self.fill(k, t) for k, t in zip(self._round_down(target), target, strict=True)])
        return kept.reshape(wish.shape)

    def fill(self, kept: IntArray, target: FloatArray) -> IntArray:
        """Adds levels, the group furthest below its `target` units first, until not one more level fits."""
        kept, target = kept.copy(), np.asarray(target, np.float64)
        while True:
            following = self.next_levels(kept)
            fits = (following > kept) & (self._changed(kept, following) <= self.budget.limit)
            if not fits.any():
                return kept
            shortfall = (target - kept) / np.maximum(following - kept, 1)
            chosen = int(np.argmax(np.where(fits, shortfall, -np.inf)))
            kept[chosen] = following[chosen]

    def next_levels(self, kept: IntArray) -> IntArray:
        """One level up for every group, or where it stands if that was the last: kept [..., groups]."""
        return self._following[self._groups, kept]

    def interval(self, kept: IntArray, group: int) -> tuple[IntArray, IntArray]:
        """The fewest and the most units that `group` may keep when all earlier groups are decided: kept [..., groups].

        Most: the budget can still be met with every later group at its floor. Fewest: it can still be used up with
        every later group whole. Where rounding makes the two cross, the budget wins.
        """
        levels = self.levels[group]
        later = np.arange(kept.shape[-1]) > group
        cheapest = self.budget.cost.along(np.where(later, self.floor, kept), group, levels)
        dearest = self.budget.cost.along(np.where(later, self.units, kept), group, levels)
        highest = np.maximum((cheapest <= self.budget.limit).sum(axis=-1) - 1, 0)
        lowest = np.minimum((dearest < self.budget.limit).sum(axis=-1), highest)
        return levels[lowest], levels[highest]

    def snap(self, units: FloatArray, group: int) -> IntArray:
        """The nearest allowed level of `group` to a wished number of units [...], the lower one of two."""
        levels = self.levels[group]
        return levels[np.searchsorted(levels[:-1] + levels[1:], 2 * np.asarray(units))]

    def _round_down(self, units: FloatArray) -> IntArray:
        whole = np.clip(np.floor(units + 1e-9).astype(np.int64), 0, self.units)
        return self._grid[self._groups, whole]

    def _changed(self, kept: IntArray, levels: IntArray) -> FloatArray:
        """[groups]: what the plan costs if one group kept its one of `levels` instead."""
        if self._form is not None:
            return self._form.changed(kept, levels)
        candidates = np.repeat(kept[None], len(kept), axis=0)
        np.fill_diagonal(candidates, levels)
        return self.budget.cost(candidates)


def _at_most(levels: IntArray, widest: int) -> IntArray:
    """[widest + 1]: the highest level ≤ u for every u, or the lowest level where there is none."""
    return levels[np.maximum(np.searchsorted(levels, np.arange(widest + 1), "right") - 1, 0)]


def _above(levels: IntArray, widest: int) -> IntArray:
    """[widest + 1]: the lowest level > u for every u, or the highest level where there is none."""
    return levels[np.minimum(np.searchsorted(levels, np.arange(widest + 1), "right"), len(levels) - 1)]
