"""The last refinement of a plan whose cost has steps: no group pays for one that buys more elsewhere."""

from collections.abc import Callable, Sequence

import numpy as np

from autoprune.cost.budget import Budget
from autoprune.cost.model import CostModel, FloatArray
from autoprune.structure.groups import IntArray

STEEP = 2.0  # a step frees more than so many times its units' share of the group's cost; no quadratic cost does
AMBITION = 1.5  # how many times its target a group can make use of
LAST = -1e18  # units: the target of a group that is given to when nothing else fits

Fill = Callable[[IntArray, FloatArray], IntArray]


def refined(
    kept: IntArray,
    target: FloatArray,
    *,
    budget: Budget,
    costs: Sequence[CostModel],
    levels: Sequence[IntArray],
    fill: Fill,
) -> IntArray:
    """A filled plan from one, [groups]: of all steps that a group could go down, those are gone that pay.

    A group goes down a step, the others are filled with what that frees, and itself last. It pays where the plan's
    shortfall becomes smaller: the densities that are missing to AMBITION times the targets (in units, [groups]), added
    up. Groups are tried in the network's order until nothing pays. costs: the budget's that have steps.
    """
    units = np.array([each[-1] for each in levels], np.float64)
    wanted = np.minimum(AMBITION * target, units)

    def shortfall(plan: IntArray) -> float:
        return float((np.maximum(wanted - plan, 0) / units).sum())

    best, pays = shortfall(kept), True
    while pays:
        pays = False
        for group, choices in enumerate(levels):
            below = {below_step(cost, kept, group, choices) for cost in costs}
            for lower in sorted(level for level in below if level is not None):
                given, others_first = kept.copy(), wanted.copy()
                given[group], others_first[group] = lower, LAST
                if not budget.meets(given):  # what one cost saves, another may take
                    continue
                candidate = fill(given, others_first)
                if (missing := shortfall(candidate)) < best - 1e-9:
                    kept, best, pays = candidate, missing, True
                    break
    return kept


def below_step(cost: CostModel, kept: IntArray, group: int, levels: IntArray) -> int | None:
    """The highest lower level of the group that frees STEEP times what its units would in proportion; None: no step."""
    lower = levels[levels < kept[group]]
    if not len(lower):
        return None
    now = int(kept[group])
    costs = cost.along(kept, group, np.append(lower, now))
    freed = costs[-1] - costs[:-1]
    in_proportion = (now - lower) / (now - lower[0]) * freed[0]
    steep = lower[(freed > 0) & (freed > STEEP * in_proportion)]
    return int(steep[-1]) if len(steep) else None
