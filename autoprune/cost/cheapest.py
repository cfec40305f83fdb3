"""The cheapest plan that there is, for any cost: the floor, unless more units may cost less."""

from collections.abc import Iterator, Sequence

import numpy as np

from autoprune.cost.combined import TightestShare, WeightedSum
from autoprune.cost.model import CostModel, never_falls
from autoprune.structure.groups import IntArray


def cheapest_plan(cost: CostModel, levels: Sequence[IntArray]) -> IntArray:
    """The floor where no unit ever costs less than nothing, and the best of some descents elsewhere.

    A descent moves one group after the other to its cheapest level, until none can. What only several groups at once
    would make cheaper may be missed.

    Args:
        cost: Any cost.
        levels: [groups] arrays of the levels of each, ascending.

    Returns:
        [groups] kept units.
    """
    floor = np.array([each[0] for each in levels], np.int64)
    if never_falls(cost):
        return floor
    descended = [_descended(cost, start, levels) for start in _starts(cost, floor, levels)]
    return min(descended, key=lambda kept: float(cost(kept)))  # of equals, the first


def _starts(cost: CostModel, floor: IntArray, levels: Sequence[IntArray]) -> Iterator[IntArray]:
    yield floor
    yield np.array([each[-1] for each in levels], np.int64)
    if isinstance(cost, TightestShare):  # flat in many directions: what is cheap for each, and for their sum
        for part in cost.parts:
            yield cheapest_plan(part, levels)
        weights = tuple(1 / max(limit, 1e-300) for limit in cost.limits)
        yield cheapest_plan(WeightedSum("sum of shares", "", cost.parts, weights), levels)


def _descended(cost: CostModel, start: IntArray, levels: Sequence[IntArray]) -> IntArray:
    kept, least, lower = start.copy(), float(cost(start)), True
    while lower:
        lower = False
        for group, choices in enumerate(levels):
            costs = cost.along(kept, group, choices)
            if (best := float(costs.min())) < least:
                kept[group], least, lower = choices[costs.argmin()], best, True
    return kept
