"""Any target densities become a plan inside the budget: the one place where budgets are enforced."""

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.budget import Budget
from autoprune.cost.cheapest import cheapest_plan
from autoprune.cost.model import CostModel, FloatArray, changed, never_falls, smooth
from autoprune.structure.groups import IntArray, Structure

BoolArray = NDArray[np.bool_]

BISECTIONS = 50
SCALES = 32  # that are tried above the best one so far, where a larger plan may cost less
WIDEST_GROUP = 1e9  # units; a density further below another group's than this is its floor anyway
STEEP = 2.0  # a step frees more than so many times its units' share of the group's cost; no quadratic cost does
AMBITION = 1.5  # how many times its target a group can make use of
LAST = -1e18  # units: the target of a group that is given to when nothing else fits


class Projector:
    """Maps target densities onto plans whose cost is at most the budget, on each group's allowed levels, and tight.

    Whole plans (`project`) are filled: no group could keep any more units. Group by group (`interval`), every step is
    bounded so that the last one meets the budget, and the last group that is not whole could not keep any more. The
    cost may be any: `floor` is a plan that meets the budget, and below it no target goes. It is every group's lowest
    level unless that costs too much, where more units may cost less; then it is the cheapest plan that was found.

    Args:
        structure: The groups, with the levels that they may keep.
        budget: A bound on one cost, or on several together.

    Raises:
        ValueError: There is no group, or no plan was found that meets the budget.

    >>> Projector(structure, parse_budget("macs:0.5", costs, structure)).project(np.ones(3))
    array([6, 6, 11])
    """

    def __init__(self, structure: Structure, budget: Budget) -> None:
        if not structure.groups:
            raise ValueError("there is nothing to decide: the structure has no groups")
        self.budget = budget
        self.units = structure.units
        self.levels = [np.array(group.levels, np.int64) for group in structure.groups]
        # [groups, units + 1]: the highest level of at most u units, and the lowest of more; group sizes differ, so rows
        # are padded
        widths = np.arange(int(self.units.max()) + 1)
        pairs = [(levels, np.searchsorted(levels, widths, "right")) for levels in self.levels]
        self._grid = np.stack([levels[np.maximum(at - 1, 0)] for levels, at in pairs])
        self._following = np.stack([levels[np.minimum(at, len(levels) - 1)] for levels, at in pairs])
        self._groups = np.arange(len(self.levels))
        self._stepped = [bound.cost for bound in budget.bounds if not smooth(bound.cost)]
        self._rising = [bound for bound in budget.bounds if never_falls(bound.cost)]
        self.never_falls = never_falls(budget.cost)
        # plans that later groups may be completed by, the dense one last [plans, groups]
        self.floor, self._completions = structure.floor, [structure.floor, structure.units]
        if not self.never_falls:
            cheapest = cheapest_plan(budget.cost, self.levels)
            if not budget.meets(cheapest):
                raise ValueError(f"no plan was found that meets the budget {budget.text!r}; give it more")
            self._completions.insert(1, cheapest)
            self.floor = self.floor if budget.meets(self.floor) else cheapest

    def project(self, density: FloatArray) -> IntArray:
        """The filled plans whose densities are proportional to the targets.

        Where more units may cost less, it is the largest of the scales that were tried; 1 is among them.

        Args:
            density: [..., groups] finite and above 0.

        Returns:
            [..., groups] kept units.
        """
        targets = np.asarray(density, np.float64)
        bad = ~(np.isfinite(targets) & (targets > 0))
        if bad.any():
            raise ValueError(f"densities must be finite and positive, got {targets[bad][:3].tolist()}")
        targets = np.maximum(targets, targets.max(axis=-1, keepdims=True) / WIDEST_GROUP)
        flat = targets.reshape(-1, targets.shape[-1]) * self.units
        high = (self.units / flat).max(axis=1)  # the scale at which everything is kept
        scale = self._scaled(flat, np.zeros(len(flat)), high)  # scale 0 is the floor plan, which is feasible
        if not self.never_falls:
            scale = self._higher(flat, scale, high)
        target = flat * scale[:, None]
        kept = self.fill(self._round_down(target), target)
        if self._stepped:
            kept = np.stack([self.refined(k, t) for k, t in zip(kept, target, strict=True)])
        return kept.reshape(targets.shape)

    def fill(self, kept: IntArray, target: FloatArray) -> IntArray:
        """Adds levels, the group furthest below its target first, until no higher level of any group fits.

        Args:
            kept: [..., groups] units of plans inside the budget.
            target: [..., groups] units.

        Returns:
            [..., groups] kept units.
        """
        filled = kept.reshape(-1, kept.shape[-1]).copy()
        wanted = np.asarray(target, np.float64).reshape(filled.shape)
        unfilled = np.arange(len(filled))
        while len(unfilled):
            following, fits = self._next(filled[unfilled])
            more = fits.any(axis=-1)
            unfilled, following, fits = unfilled[more], following[more], fits[more]
            now = filled[unfilled]
            shortfall = (wanted[unfilled] - now) / np.maximum(following - now, 1)
            chosen = np.where(fits, shortfall, -np.inf).argmax(axis=-1)
            filled[unfilled, chosen] = following[np.arange(len(unfilled)), chosen]
        return filled.reshape(kept.shape)

    def refined(self, kept: IntArray, target: FloatArray) -> IntArray:
        """A filled plan from one: no group stands just above a step of the cost whose price buys more elsewhere.

        A group goes down a step, the others are filled with what that frees, and itself last. It pays where the plan's
        shortfall becomes smaller: the densities that are missing to AMBITION times the targets, added up. Groups are
        tried in the network's order until nothing pays.

        Args:
            kept: [groups] units of a filled plan.
            target: [groups] units.
        """
        units = self.units.astype(np.float64)
        wanted = np.minimum(AMBITION * np.asarray(target, np.float64), units)

        def shortfall(plan: IntArray) -> float:
            return float((np.maximum(wanted - plan, 0) / units).sum())

        best, pays = shortfall(kept), True
        while pays:
            pays = False
            for group, levels in enumerate(self.levels):
                below = {below_step(cost, kept, group, levels) for cost in self._stepped}
                for lower in sorted(level for level in below if level is not None):
                    given, others_first = kept.copy(), wanted.copy()
                    given[group], others_first[group] = lower, LAST
                    if not self.budget.meets(given):  # what one cost saves, another may take
                        continue
                    candidate = self.fill(given, others_first)
                    if (missing := shortfall(candidate)) < best - 1e-9:
                        kept, best, pays = candidate, missing, True
                        break
        return kept

    def next_levels(self, kept: IntArray) -> IntArray:
        """One level up for every group, or where it stands if that was the last: kept [..., groups]."""
        return self._following[self._groups, kept]

    def fitting(self, kept: IntArray, group: int, levels: IntArray) -> IntArray:
        """Those of the levels that the group may keep if the others stay as they are.

        Args:
            kept: [groups] units of a plan.
            group: The index of the group that changes.
            levels: [levels] units that it might keep.

        Returns:
            [fitting], at most as many as there are levels, in their order.
        """
        fitting: IntArray = levels[self.budget.cost.along(kept, group, levels) <= self.budget.limit]
        return fitting

    def levels_below(self, units: FloatArray, groups: IntArray) -> IntArray:
        """The highest level of each group that is at most so many units, or its lowest one.

        Args:
            units: [n] units, in fractions.
            groups: [n] indices of groups.

        Returns:
            [n] units.
        """
        return self._grid[groups, np.clip(np.floor(units).astype(np.int64), 0, self.units[groups])]

    def highest_fitting(self, kept: IntArray, groups: IntArray, most: IntArray) -> IntArray:
        """The highest level of one group of each plan that fits if the others stay; what it keeps where none does.

        Args:
            kept: [plans, groups] units of plans.
            groups: [plans] the index of the group that changes.
            most: [plans] a level, above which none is looked at.

        Returns:
            [plans] units.
        """
        rows = np.arange(len(kept))
        low = kept[rows, groups]
        if not self.never_falls:
            for row, group in enumerate(groups.tolist()):
                levels = self.levels[group]
                inside = levels[(levels > low[row]) & (levels <= most[row])]
                low[row] = self.fitting(kept[row], group, inside).max(initial=low[row])
            return low
        plans, high = kept.copy(), np.maximum(most, low)
        while (open_ := low < high).any():
            middle = np.maximum(self._grid[groups, (low + high) // 2], np.minimum(self._following[groups, low], high))
            plans[rows, groups] = middle
            fits = self.budget.cost(plans) <= self.budget.limit
            low = np.where(open_ & fits, middle, low)
            high = np.where(open_ & ~fits, self._grid[groups, np.maximum(middle - 1, 0)], high)
        return low

    def choices(self, kept: IntArray, group: int) -> BoolArray:
        """Which levels the group may keep when all earlier ones are decided.

        The budget can still be met: with later groups at their floor, or whole, or as in the cheapest plan. It can
        still be used up: no level below one at which the budget is not used up with every later group whole. Where
        rounding leaves no level for both, the budget wins, with the highest that meets it.

        Args:
            kept: [..., groups] units; those of later groups do not matter.
            group: The index of the group to decide.

        Returns:
            [..., levels]
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
        """The fewest and the most units of `choices`; between them some may be missing where more may cost less.

        Args:
            kept: [..., groups] units; those of later groups do not matter.
            group: The index of the group to decide.

        Returns:
            [...] units each.
        """
        return self.ends(self.choices(kept, group), group)

    def ends(self, choices: BoolArray, group: int) -> tuple[IntArray, IntArray]:
        """The lowest and the highest of a group's choices.

        Args:
            choices: [..., levels] which levels may be chosen; at least one of each plan's.
            group: The index of the group.

        Returns:
            [...] units each.
        """
        levels = self.levels[group]
        return levels[choices.argmax(axis=-1)], levels[_after_last(choices) - 1]

    def snap(self, units: FloatArray, group: int) -> IntArray:
        """The allowed level of the group nearest to so many units, the lower one of two.

        Args:
            units: [...] units that are wanted, in fractions.
            group: The index of the group.

        Returns:
            [...] units.
        """
        levels = self.levels[group]
        return levels[np.searchsorted(levels[:-1] + levels[1:], 2 * np.asarray(units))]

    def nearest(self, units: FloatArray, group: int, choices: BoolArray) -> IntArray:
        """The choice of the group nearest to so many units, the lower one of two.

        Args:
            units: [...] units that are wanted, in fractions.
            group: The index of the group.
            choices: [..., levels] which levels may be chosen; at least one of each plan's.

        Returns:
            [...] units.
        """
        levels = self.levels[group]
        inside = np.clip(np.asarray(units, np.float64), *self.ends(choices, group))
        distance = np.where(choices, np.abs(2 * levels - 2 * inside[..., None]), np.inf)
        nearest: IntArray = levels[distance.argmin(axis=-1)]
        return nearest

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
        """Each group's lowest higher level that fits, and whether there is one: kept, and both [plans, groups]."""
        following = self.next_levels(kept)
        fits: BoolArray = (following > kept) & (changed(self.budget.cost, kept, following) <= self.budget.limit)
        if not self.never_falls:
            open_ = ~fits & (following < self.units)
            for bound in self._rising:  # what is too much for these now is so at every higher level
                open_ &= changed(bound.cost, kept, following) <= bound.limit
            for plan, group in np.argwhere(open_):
                higher = self.levels[group][self.levels[group] > following[plan, group]]
                if len(above := self.fitting(kept[plan], int(group), higher)):
                    following[plan, group], fits[plan, group] = above[0], True
        return following, fits

    def _round_down(self, units: FloatArray) -> IntArray:
        whole = np.clip(np.floor(units + 1e-9).astype(np.int64), 0, self.units)
        kept = self._grid[self._groups, whole]
        return kept if self.never_falls else np.maximum(kept, self.floor)


class Rounding(Projector):
    """Takes the place of a Projector where the reward, not the projection, speaks of the budget.

    Targets become the nearest allowed levels, whatever they cost.
    """

    def project(self, density: FloatArray) -> IntArray:
        """density [..., groups], at most 1 is executed → kept [..., groups]."""
        units: FloatArray = np.minimum(np.asarray(density, np.float64), 1.0) * self.units
        return np.stack([self.snap(units[..., group], group) for group in range(len(self.levels))], axis=-1)

    def choices(self, kept: IntArray, group: int) -> BoolArray:
        """Every level.

        Args:
            kept: [..., groups] units, of which only the shape matters.
            group: The index of the group to decide.

        Returns:
            [..., levels], all true.
        """
        return np.ones((*kept.shape[:-1], len(self.levels[group])), bool)


def below_step(cost: CostModel, kept: IntArray, group: int, levels: IntArray) -> int | None:
    """The highest lower level of the group that frees STEEP times what its units would in proportion; None: no step.

    Args:
        cost: One that may have steps.
        kept: [groups] units of a plan.
        group: The index of the group.
        levels: [levels] those of the group, ascending.
    """
    lower = levels[levels < kept[group]]
    if not len(lower):
        return None
    now = int(kept[group])
    costs = cost.along(kept, group, np.append(lower, now))
    freed = costs[-1] - costs[:-1]
    in_proportion = (now - lower) / (now - lower[0]) * freed[0]
    steep = lower[(freed > 0) & (freed > STEEP * in_proportion)]
    return int(steep[-1]) if len(steep) else None


def _after_last(flags: BoolArray) -> IntArray:
    """The index after the last one that is set, or 0: [..., levels] → [...]."""
    after: IntArray = np.where(flags.any(axis=-1), flags.shape[-1] - flags[..., ::-1].argmax(axis=-1), 0)
    return after
