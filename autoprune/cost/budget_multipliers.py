"""Several budgets as one whose cost adds up, for methods that can only add."""

import numpy as np

from autoprune.cost.budget import Budget
from autoprune.cost.combined import WeightedSum
from autoprune.cost.model import CostModel
from autoprune.structure.groups import IntArray

SETTLED = 1e-2  # a multiplier that changes by less has settled


class BudgetMultipliers:
    """Multipliers of the shares of every limit that a plan uses; they add up to 1.

    So what meets all limits meets the sum. The multiplier of a budget that plans exceed grows, and that of one which
    they leave over shrinks. One budget alone is itself.

    Args:
        budget: One, or several together.
    """

    def __init__(self, budget: Budget) -> None:
        self._bounds, self.limit = budget.bounds, budget.limit
        self._multipliers = np.ones(1)
        if len(self._bounds) > 1:  # one budget alone may be 0, where every group may go
            multipliers = np.array([1 / bound.relative for bound in self._bounds])
            self._multipliers = multipliers / multipliers.sum()

    @property
    def cost(self) -> CostModel:
        """The weighted sum under the present multipliers, for plans to keep at most at `limit`."""
        if len(self._bounds) == 1:
            return self._bounds[0].cost
        weights = tuple(float(m) / bound.limit for m, bound in zip(self._multipliers, self._bounds, strict=True))
        return WeightedSum("priced", "× the budget", tuple(bound.cost for bound in self._bounds), weights)

    def follow(self, kept: IntArray) -> bool:
        """Adapts the multipliers to what a plan [groups] uses of every budget; returns whether they have settled."""
        if len(self._bounds) == 1:
            return True
        used = np.array([float(bound.cost(kept)) / bound.limit for bound in self._bounds])
        before = self._multipliers
        self._multipliers = before * used / (before * used).sum()
        return bool(np.abs(self._multipliers - before).max() < SETTLED)
