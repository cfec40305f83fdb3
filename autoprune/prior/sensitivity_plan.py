"""The sensitivity-based plan: single-group error curves, and the dynamic program that spends the budget on them.

The idea is SPDY's (arXiv 2201.13096) without its search. Groups are assumed not to interact in their errors; costs do
interact (a layer's MACs are its outputs times its inputs), so the program is solved on costs linearised around its last
solution, and repeated until it does not improve.
"""

from collections.abc import Mapping

import numpy as np

from autoprune.cost.budget_multipliers import BudgetMultipliers
from autoprune.cost.model import FloatArray, QuadraticCost
from autoprune.cost.projection import Projector
from autoprune.evaluation.curves import Curve
from autoprune.plan import PruningPlan
from autoprune.prior.uniform_plan import uniform_target
from autoprune.structure.groups import IntArray, Structure

BINS = 2_000  # resolution of the budget in the dynamic program
BINS_PER_GROUP = 16  # at least
ROUNDS = 12  # linearisations
EFFORT = 1_000_000  # groups times levels of all groups, above which moves between groups become coarser
NEAR = 16  # levels above the present one that are looked at first
GONE = 1e-6  # units that are asked for where none are: a target is a positive density


def sensitivity_plan(structure: Structure, projector: Projector, curves: Mapping[str, Curve]) -> PruningPlan:
    """Returns the filled plan inside the budget that loses least if single-group losses add up.

    Args:
        structure: The network's groups and layers.
        projector: Moves plans into the budget.
        curves: Group → its loss at each of its levels, alone.
    """
    return least_loss_plan(structure, projector, [curves[group.name].at(group.levels) for group in structure.groups])


def least_loss_plan(structure: Structure, projector: Projector, losses: list[FloatArray]) -> PruningPlan:
    """Returns the filled plan inside the budget with the least sum of losses.

    Args:
        structure: Groups to decide on.
        projector: Holds the budget.
        losses: For each group, the loss at each of its levels [levels].
    """
    exchange = _Exchange(projector, losses)
    current = projector.project(uniform_target(structure))
    best, best_loss = current, exchange.loss(current)
    multipliers = BudgetMultipliers(projector.budget)
    for _ in range(ROUNDS):
        cost = multipliers.cost
        costs = [cost.along(current, g, levels) for g, levels in enumerate(projector.levels)]
        limit = (
            multipliers.limit
            - float(cost(current))
            + sum(float(c[np.searchsorted(projector.levels[g], current[g])]) for g, c in enumerate(costs))
        )
        choice = allocate(losses, costs, limit)
        target = np.array([projector.levels[g][i] for g, i in enumerate(choice)])
        candidate = projector.project(np.maximum(target, GONE) / structure.units)
        candidate_loss = exchange.loss(candidate)
        if candidate_loss < best_loss:
            best, best_loss = candidate, candidate_loss
        if multipliers.follow(target) and (candidate == current).all():
            break
        current = candidate
    return structure.plan(exchange.improved(best))


def allocate(losses: list[FloatArray], costs: list[FloatArray], limit: float) -> list[int]:
    """The level of every group that minimises Σ loss with Σ cost ≤ limit: exact up to 1/BINS of the limit.

    Every group rounds its cost up to a whole bin; more than BINS / BINS_PER_GROUP of them get more bins. Where nothing
    is to spare, every group is at the best of its cheapest levels.

    Args:
        losses: Per group [levels].
        costs: Per group [levels].
        limit: The most that may be used, in the cost's unit.
    """
    cheapest = [float(c.min()) for c in costs]
    spare = limit - sum(cheapest)
    if spare <= 0:
        return [int(np.lexsort((loss, c))[0]) for loss, c in zip(losses, costs, strict=True)]
    bins = max(BINS, BINS_PER_GROUP * len(costs))
    with np.errstate(over="ignore"):  # next to nothing to spare: the quotient is infinite, that is, beyond all bins
        bins_used = [np.ceil((c - low) / spare * bins - 1e-9) for c, low in zip(costs, cheapest, strict=True)]
    steps = [np.minimum(used, bins + 1).astype(np.int64) for used in bins_used]
    value = np.zeros(bins + 1)  # value[b]: least loss of the groups so far with at most b bins
    choices = []
    for loss, step in zip(losses, steps, strict=True):
        worthwhile = _best_of_each_step(loss, step, bins)
        options = np.full((len(worthwhile), bins + 1), np.inf)
        for row, level in enumerate(worthwhile):
            options[row, step[level] :] = value[: bins + 1 - step[level]] + loss[level]
        choices.append(worthwhile[options.argmin(axis=0)])
        value = options.min(axis=0)
    left, chosen = bins, []
    for choice, step in zip(reversed(choices), reversed(steps), strict=True):
        level = int(choice[left])
        chosen.append(level)
        left -= int(step[level])
    return chosen[::-1]


def _best_of_each_step(loss: FloatArray, step: IntArray, bins: int) -> IntArray:
    """The levels that no other one of the same whole step beats, ascending: of many levels, few steps remain."""
    by_step = np.lexsort((loss, step))  # stable: of equal ones, the lower level first
    first = np.diff(step[by_step], prepend=-1) > 0
    best = by_step[first]
    return np.sort(best[step[best] <= bins])


class _Exchange:
    """Moves units from one group to another while the predicted loss falls: what linearised costs left undone."""

    def __init__(self, projector: Projector, losses: list[FloatArray]) -> None:
        self._projector = projector
        cost = projector.budget.cost
        self._quadratic = cost if isinstance(cost, QuadraticCost) and cost.never_falls else None
        widest = max(len(levels) for levels in projector.levels)
        # [places, groups]: some groups have fewer levels, so their last one is repeated
        self._levels = np.stack([np.pad(x, (0, widest - len(x)), "edge") for x in projector.levels], axis=1)
        self._losses = np.stack([np.pad(x, (0, widest - len(x)), "edge") for x in losses], axis=1)
        units = np.arange(projector.units.max() + 1)
        self._places = np.stack([levels.searchsorted(units) for levels in projector.levels])  # [groups, units + 1]
        self._all = np.arange(len(losses))
        sizes = np.array([len(levels) for levels in projector.levels])
        coarseness = max(1.0, len(sizes) * float(sizes.sum()) / EFFORT)
        self._gives = np.maximum(1, (coarseness * sizes / sizes.max()).astype(np.int64))  # levels at once, [groups]

    def loss(self, kept: IntArray) -> float:
        return float(self._lost(kept).sum())

    def improved(self, kept: IntArray) -> IntArray:
        """The plan after every move that pays: a level of one group for as many of another as then fit.

        In large problems (EFFORT), groups of many levels give several at once.
        """
        best, best_loss, improved = kept, self.loss(kept), True
        while improved:
            improved = False
            for giver in range(len(kept)):
                takers = self._promising(best, giver)
                while takers:
                    taker = takers.pop(0)
                    candidate = self._moved(best, giver, taker)
                    if candidate is None or (loss := self.loss(candidate)) >= best_loss - 1e-12:
                        continue
                    best, best_loss, improved = candidate, loss, True
                    takers = [later for later in self._promising(best, giver) if later > taker]
        return best

    def _promising(self, kept: IntArray, giver: int) -> list[int]:
        """The groups that may gain more than the giver loses; all others do not.

        What a group leaves over is filled with levels of others. That gains no more than the best ratio of gain to cost
        allows that fits, because several groups together cost no less than each alone.
        """
        given = self._given(kept, giver)
        if given is None:
            return []
        if self._quadratic is None:
            return [int(group) for group in self._all if group != giver]
        places, left = self._reach(self._quadratic, given)
        takes = (left >= 0) & (self._levels[places, self._all] > given)
        gain = np.where(takes, self._lost(given) - self._losses[places, self._all], 0.0)
        cost = self._projector.budget.limit - float(self._quadratic(given)) - left
        rates = np.divide(gain, cost, out=np.zeros_like(gain), where=(gain > 0) & (cost > 0)).max(axis=0)
        highest = len(takes) - 1 - takes[::-1].argmax(axis=0)
        over = left[highest, self._all]
        most = gain[highest, self._all] + over * _best_within(over, np.where(takes[0], cost[0], np.inf), rates)
        worth = takes.any(axis=0) & (most > self._lost(given)[giver] - self._lost(kept)[giver])
        worth[giver] = False
        return np.flatnonzero(worth).tolist()

    def _reach(self, cost: QuadraticCost, kept: IntArray) -> tuple[IntArray, FloatArray]:
        """The next places of every group until none fits, and what each alone would leave: both [places, groups]."""
        last, more = len(self._levels) - 1, NEAR
        while True:
            places = np.minimum(self._level_indices(kept) + np.arange(1, more + 1)[:, None], last)
            levels = self._levels[places, self._all]
            left = self._projector.budget.limit - cost.changed(kept, levels)
            if not ((left[-1] >= 0) & (levels[-1] < self._levels[-1])).any():
                return places, left
            more *= 2

    def _lost(self, kept: IntArray) -> FloatArray:
        """[groups]"""
        lost: FloatArray = self._losses[self._level_indices(kept), self._all]
        return lost

    def _level_indices(self, kept: IntArray) -> IntArray:
        """[groups]"""
        index: IntArray = self._places[self._all, kept]
        return index

    def _given(self, kept: IntArray, giver: int) -> IntArray | None:
        """The plan once the giver has given; None where it has nothing to give."""
        levels = self._projector.levels[giver]
        index = int(np.searchsorted(levels, kept[giver]))
        if index == 0:
            return None
        lower = levels[: max(0, index - self._gives[giver]) + 1]
        if self._quadratic is None:  # there may be steps, on which a level frees nothing
            costs = self._projector.budget.cost.along(kept, giver, np.append(lower, kept[giver]))
            lower = lower[costs[:-1] < costs[-1]]
        if not len(lower):
            return None
        given = kept.copy()
        given[giver] = lower[-1]
        return given

    def _moved(self, kept: IntArray, giver: int, taker: int) -> IntArray | None:
        """What the giver has given, and as many units of `taker` as then fit; None where none do."""
        moved = self._given(kept, giver)
        if moved is None:
            return None
        moved[taker] = self._highest(moved, taker, most=self._projector.units[taker])
        if moved[taker] <= kept[taker]:
            return None
        if self._gives[giver] > 1:  # of several levels, those that the taker had no use for go back
            moved[giver] = self._highest(moved, giver, most=kept[giver])
        return self._projector.fill(moved, moved.astype(np.float64))

    def _highest(self, kept: IntArray, group: int, *, most: int) -> int:
        """The highest level of the group that fits; the lowest where none does."""
        levels = self._projector.levels[group]
        fitting = self._projector.fitting(kept, group, levels[levels <= most])
        return int(fitting.max(initial=levels[0]))


def _best_within(amounts: FloatArray, costs: FloatArray, values: FloatArray) -> FloatArray:
    """For each amount, the largest of the values whose cost is no more than it; 0 where there is none."""
    cheapest = costs.argsort()
    best = np.maximum.accumulate(np.append(0.0, values[cheapest]))
    best_values: FloatArray = best[costs[cheapest].searchsorted(amounts, "right")]
    return best_values
