"""Any wish becomes a plan inside the budget: the one place where budgets are enforced."""

import numpy as np

from autoprune.cost.budget import Budget
from autoprune.cost.model import FloatArray
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
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            fits = self.budget.cost(self._round_down(flat * middle[:, None])) <= self.budget.limit
            low, high = np.where(fits, middle, low), np.where(fits, high, middle)
        target = flat * low[:, None]
        kept = np.stack([self.fill(k, t) for k, t in zip(self._round_down(target), target, strict=True)])
        return kept.reshape(wish.shape)

    def fill(self, kept: IntArray, target: FloatArray) -> IntArray:
        """Adds levels, the group furthest below its `target` units first, until not one more level fits."""
        kept, target = kept.copy(), np.asarray(target, np.float64)
        while True:
            following = self.next_levels(kept)
            candidates = np.repeat(kept[None], len(kept), axis=0)
            np.fill_diagonal(candidates, following)
            fits = (following > kept) & (self.budget.cost(candidates) <= self.budget.limit)
            if not fits.any():
                return kept
            shortfall = (target - kept) / np.maximum(following - kept, 1)
            chosen = int(np.argmax(np.where(fits, shortfall, -np.inf)))
            kept[chosen] = following[chosen]

    def next_levels(self, kept: IntArray) -> IntArray:
        """One level up for every group, or where it stands if that was the last: kept [groups]."""
        places = [np.searchsorted(levels, k, "right") for levels, k in zip(self.levels, kept, strict=True)]
        return np.array([levels[: at + 1][-1] for levels, at in zip(self.levels, places, strict=True)], np.int64)

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
        """The nearest allowed level of `group` to a wished number of units [...]."""
        levels = self.levels[group]
        nearest: IntArray = np.abs(np.asarray(units)[..., None] - levels).argmin(axis=-1)
        return levels[nearest]

    def _round_down(self, units: FloatArray) -> IntArray:
        whole = np.clip(np.floor(units + 1e-9).astype(np.int64), 0, self.units)
        return self._grid[np.arange(len(self.levels)), whole]


def _at_most(levels: IntArray, widest: int) -> IntArray:
    """[widest + 1]: the highest level ≤ u for every u, or the lowest level where there is none."""
    return levels[np.maximum(np.searchsorted(levels, np.arange(widest + 1), "right") - 1, 0)]
