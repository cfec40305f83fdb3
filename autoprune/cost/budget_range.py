"""Budgets that training draws: `macs:0.2..0.8`."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from autoprune.cost.budget import FINEST, Budget, least_share, parse_budget
from autoprune.cost.model import CostModel
from autoprune.structure.groups import Structure


@dataclass(frozen=True, slots=True)
class BudgetRange:
    """Budgets between two fractions of dense of one cost, 0 < low ≤ high ≤ 1.

    >>> str(BudgetRange.parse("macs:0.5"))
    'macs:0.5..0.5'
    """

    cost: str
    """The cost's name."""
    low: float
    """The tightest budget, a fraction of dense."""
    high: float
    """The loosest budget, a fraction of dense."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of `macs:0.2..0.8`, or of one fraction, `macs:0.5`. Raises ValueError for what is neither."""
        match = re.fullmatch(r"(\w+):([0-9.e-]+?)(?:\.\.([0-9.e-]+))?", text.strip())
        try:
            if match is None:
                raise ValueError
            low = float(match[2])
            budget = cls(match[1], low, float(match[3] or low))
        except ValueError:
            raise ValueError(
                f"budget {text!r} must be written cost:low..high, fractions of dense, such as macs:0.2..0.8"
            ) from None
        if not 0 < budget.low <= budget.high <= 1:
            raise ValueError(f"budget {text!r} must go up, within 0 and 1")
        return budget

    def draw(
        self, count: int, costs: Mapping[str, CostModel], structure: Structure, rng: np.random.Generator
    ) -> list[Budget]:
        """Budgets of a network, even in the logarithm: one from each of `count` equal parts of the range.

        What no plan of the network meets is left out of the range.

        Args:
            count: How many, at least 1.
            costs: Name → cost.
            structure: The network's groups.
            rng: Draws a place in each part.

        Raises:
            ValueError: The cost is unknown, or nothing of the range is left.
        """
        if self.cost not in costs:
            raise ValueError(f"budget {self} names the unknown cost {self.cost!r}; the costs are {list(costs)}")
        low = max(self.low, least_share(costs[self.cost], structure))
        if low > self.high:
            raise ValueError(f"budget {self} is less than the smallest plan costs, {low:.4f} of dense")
        quantiles = (np.arange(count) + rng.random(count)) / count
        shares = np.exp(math.log(low) + quantiles * (math.log(self.high) - math.log(low)))
        rounded = [min(1.0, math.ceil(FINEST * share) / FINEST) for share in shares.tolist()]
        return [parse_budget(f"{self.cost}:{share:.4f}", costs, structure) for share in rounded]

    def __str__(self) -> str:
        return f"{self.cost}:{self.low:g}..{self.high:g}"
