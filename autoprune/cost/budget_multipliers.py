"""Several budgets as one whose cost adds up, for methods that can only add."""

import numpy as np

from autoprune.cost.budget import Budget
from autoprune.cost.combined import WeightedSum
from autoprune.cost.model import CostModel
from autoprune.structure.groups import IntArray

SETTLED = 1e-2  # a price that changes by less has settled


class BudgetMultipliers:
    """A price on the share of every limit that a plan uses; prices add up to 1, so what meets all limits meets the sum.

    A budget that wishes exceed becomes dearer, and one that they leave over cheaper. One budget alone is itself.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget, self._bounds = budget, budget.bounds
        self._prices = np.ones(1)
        if len(self._bounds) > 1:
            self._prices = np.array([1 / bound.relative for bound in self._bounds])
            self._prices /= self._prices.sum()

    @property
    def cost(self) -> CostModel:
        if len(self._bounds) == 1:
            return self._budget.cost
        weights = tuple(float(p) / b.limit for p, b in zip(self._prices, self._bounds, strict=True))
        return WeightedSum("priced", "× the budget", tuple(bound.cost for bound in self._bounds), weights)

    @property
    def limit(self) -> float:
        return self._budget.limit

    def follow(self, wished: IntArray) -> bool:
        """Takes in what a wish uses of every budget, [groups]; whether the prices have settled."""
        if len(self._bounds) == 1:
            return True
        used = np.array([float(bound.cost(wished)) / bound.limit for bound in self._bounds])
        before = self._prices
        self._prices = before * used / (before * used).sum()
        return bool(np.abs(self._prices - before).max() < SETTLED)
