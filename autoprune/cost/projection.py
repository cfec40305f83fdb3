"""Any wish becomes a plan inside the budget: the one place where budgets are enforced."""

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.budget import Budget
from autoprune.cost.cheapest import cheapest_plan
from autoprune.cost.model import FloatArray, changed, never_falls, smooth
from autoprune.cost.refinement import refined
from autoprune.structure.groups import IntArray, Structure

BoolArray = NDArray[np.bool_]

BISECTIONS = 50
SCALES = 32  # that are tried above the one that was found, where a larger plan may cost less
WIDEST_GROUP = 1e9  # units; a density further below another group's than this is its floor anyway


class Projector:
    """Maps wishes onto plans whose cost is at most the budget, on each group's allowed levels, and tight.

    Whole plans (`project`) are filled: no group could keep any more units. Layer by layer (`interval`), every step is
    bounded so that the last one meets the budget, and the last group that is not whole could not keep any more. The
    cost may be any: `floor` is a plan that meets the budget, and below it no wish goes. It is every group's lowest
    level unless that costs too much, where more units may cost less; then it is the cheapest plan that was found.
    """

    def __init__(self, structure: Structure, budget: Budget) -> None:
        if not structure.groups:
            raise ValueError("there is nothing to decide: the structure has no groups")
        self.budget = budget
        self.units = structure.units
        self.levels = [np.array(group.levels, np.int64) for group in structure.groups]
        # grid[g, u] is the highest level of group g with at most u units; group sizes differ, so rows are padded
        widest = int(self.units.max())
        self._grid = np.stack([_at_most(levels, widest) for levels in self.levels])
        self._following = np.stack([_above(levels, widest) for levels in self.levels])
        self._groups = np.arange(len(self.levels))
        self._stepped = [bound.cost for bound in budget.bounds if not smooth(bound.cost)]
        self._rising = [bound for bound in budget.bounds if never_falls(bound.cost)]
        self.never_falls = never_falls(budget.cost)
        self.floor, self._completions = _completions(structure, budget, self.levels, never_falls=self.never_falls)

    def project(self, density: FloatArray) -> IntArray:
        """The filled plan whose densities are proportional to the wish: density [..., groups] in (0, 1] → kept.

        Where more units may cost less, it is the largest of the scales that were tried; 1 is among them.
        """
        wish = np.asarray(density, np.float64)
        bad = ~(np.isfinite(wish) & (wish > 0))
        if bad.any():
            raise ValueError(f"densities must be finite and positive, got {wish[bad][:3].tolist()}")
        wish = np.maximum(wish, wish.max(axis=-1, keepdims=True) / WIDEST_GROUP)
        flat = wish.reshape(-1, wish.shape[-1]) * self.units
        high = (self.units / flat).max(axis=1)  # scale at which everything is kept
        scale = self._scaled(flat, np.zeros(len(flat)), high)  # scale 0 is the floor plan, which is feasible
        if not self.never_falls:
            scale = self._higher(flat, scale, high)
        target = flat * scale[:, None]
        kept = np.stack([self.fill(k, t) for k, t in zip(self._round_down(target), target, strict=True)])
        if self._stepped:
            kept = np.stack([self.refined(k, t) for k, t in zip(kept, target, strict=True)])
        return kept.reshape(wish.shape)

    def fill(self, kept: IntArray, target: FloatArray) -> IntArray:
        """Adds levels, the group furthest below its `target` units first, until no higher level of any group fits."""
        kept, target = kept.copy(), np.asarray(target, np.float64)
        while True:
            following, fits = self._next(kept)
            if not fits.any():
                return kept
            shortfall = (target - kept) / np.maximum(following - kept, 1)
            chosen = int(np.argmax(np.where(fits, shortfall, -np.inf)))
            kept[chosen] = following[chosen]

    def refined(self, kept: IntArray, target: FloatArray) -> IntArray:
        """No group stands just above a step of the cost where the step's price buys more elsewhere: see refinement."""
        target = np.asarray(target, np.float64)
        return refined(kept, target, budget=self.budget, costs=self._stepped, levels=self.levels, fill=self.fill)

    def next_levels(self, kept: IntArray) -> IntArray:
        """One level up for every group, or where it stands if that was the last: kept [..., groups]."""
        return self._following[self._groups, kept]

    def fitting(self, kept: IntArray, group: int, levels: IntArray) -> IntArray:
        """Those of the levels that the group may keep if the others stay as they are: kept [groups] → [fitting]."""
        fitting: IntArray = levels[self.budget.cost.along(kept, group, levels) <= self.budget.limit]
        return fitting

    def choices(self, kept: IntArray, group: int) -> BoolArray:
        """Which levels the group may keep when all earlier ones are decided: kept [..., groups] → [..., levels].

        The budget can still be met: with later groups at their floor, or whole, or as in the cheapest plan. It can
        still be used up: no level below one at which the budget is not used up with every later group whole. Where
        rounding leaves no level for both, the budget wins, with the highest that meets it.
        """
        levels = self.levels[group]
        later = np.arange(kept.shape[-1]) > group
        cost, limit = self.budget.cost, self.budget.limit
        costs = [cost.along(np.where(later, rest, kept), group, levels) for rest in self._completions]
        meets = np.logical_or.reduce([each <= limit for each in costs])
        uses = np.arange(len(levels)) >= _after_last(costs[-1] < limit)[..., None]
        highest = np.maximum(_after_last(meets) - 1, 0)
        allowed: BoolArray = meets & uses
        allowed |= ~allowed.any(axis=-1, keepdims=True) & (np.arange(len(levels)) == highest[..., None])
        return allowed

    def interval(self, kept: IntArray, group: int) -> tuple[IntArray, IntArray]:
        """The fewest and the most units of `choices`; between them some may be missing where more may cost less."""
        return self.ends(self.choices(kept, group), group)

    def ends(self, choices: BoolArray, group: int) -> tuple[IntArray, IntArray]:
        """The lowest and the highest of a group's choices: [..., levels] → [...] each."""
        levels = self.levels[group]
        return levels[choices.argmax(axis=-1)], levels[_after_last(choices) - 1]

    def snap(self, units: FloatArray, group: int) -> IntArray:
        """The nearest allowed level of `group` to a wished number of units [...], the lower one of two."""
        levels = self.levels[group]
        return levels[np.searchsorted(levels[:-1] + levels[1:], 2 * np.asarray(units))]

    def nearest(self, units: FloatArray, group: int, choices: BoolArray) -> IntArray:
        """The same among a group's choices: units [...], choices [..., levels]."""
        levels = self.levels[group]
        near = np.clip(np.asarray(units, np.float64), *self.ends(choices, group))
        distance = np.where(choices, np.abs(2 * levels - 2 * near[..., None]), np.inf)
        found: IntArray = levels[distance.argmin(axis=-1)]
        return found

    def _scaled(self, flat: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
        """A scale between `low`, which fits, and `high`, above which at once nothing fits: [plans]."""
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            fits = self.budget.cost(self._round_down(flat * middle[:, None])) <= self.budget.limit
            low, high = np.where(fits, middle, low), np.where(fits, high, middle)
        return low

    def _higher(self, flat: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
        """The same, further up, where a larger plan fits as well."""
        tried = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, SCALES + 1)[1:]
        tried = np.sort(np.append(tried, np.ones((len(low), 1)), axis=1), axis=1)
        fits = self.budget.cost(self._round_down(flat[:, None] * tried[..., None])) <= self.budget.limit
        fits &= tried > low[:, None]
        best = np.where(fits, tried, low[:, None]).max(axis=1)
        above = np.where(tried > best[:, None], tried, high[:, None]).min(axis=1)
        return np.where(fits.any(axis=1), self._scaled(flat, best, np.maximum(above, best)), low)

    def _next(self, kept: IntArray) -> tuple[IntArray, BoolArray]:
        """Each group's lowest higher level that fits, and whether there is one: both [groups]."""
        following = self.next_levels(kept)
        fits: BoolArray = (following > kept) & (changed(self.budget.cost, kept, following) <= self.budget.limit)
        if not self.never_falls:
            open_ = ~fits & (following < self.units)
            for bound in self._rising:  # what is too much for these now is so at every higher level
                open_ &= changed(bound.cost, kept, following) <= bound.limit
            for group in np.flatnonzero(open_):
                above = self.fitting(kept, int(group), self.levels[group][self.levels[group] > following[group]])
                if len(above):
                    following[group], fits[group] = above[0], True
        return following, fits

    def _round_down(self, units: FloatArray) -> IntArray:
        whole = np.clip(np.floor(units + 1e-9).astype(np.int64), 0, self.units)
        kept = self._grid[self._groups, whole]
        return kept if self.never_falls else np.maximum(kept, self.floor)


def _completions(
    structure: Structure, budget: Budget, levels: list[IntArray], *, never_falls: bool
) -> tuple[IntArray, IntArray]:
    """A plan that meets the budget, and all from which later groups may be taken, the dense one last: [plans, groups].

    Raises ValueError where none is found that meets it, for costs that may fall.
    """
    floor, units = structure.floor, structure.units
    if never_falls:
        return floor, np.stack([floor, units])
    cheapest = cheapest_plan(budget.cost, levels)
    if not budget.meets(cheapest):
        raise ValueError(f"no plan was found that meets the budget {budget.text!r}; give it more")
    return (floor if budget.meets(floor) else cheapest), np.stack([floor, cheapest, units])


def _after_last(flags: BoolArray) -> IntArray:
    """The place after the last one that is set, or 0: [..., levels] → [...]."""
    places: IntArray = np.where(flags.any(axis=-1), flags.shape[-1] - flags[..., ::-1].argmax(axis=-1), 0)
    return places


def _at_most(levels: IntArray, widest: int) -> IntArray:
    """[widest + 1]: the highest level ≤ u for every u, or the lowest level where there is none."""
    return levels[np.maximum(np.searchsorted(levels, np.arange(widest + 1), "right") - 1, 0)]


def _above(levels: IntArray, widest: int) -> IntArray:
    """[widest + 1]: the lowest level > u for every u, or the highest level where there is none."""
    return levels[np.minimum(np.searchsorted(levels, np.arange(widest + 1), "right"), len(levels) - 1)]
