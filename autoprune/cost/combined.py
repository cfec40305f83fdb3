"""Several costs as one: the largest share of a limit that any of them uses, or their weighted sum."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Protocol

import numpy as np

from autoprune.cost.model import CostModel, FloatArray, changed, never_falls, smooth
from autoprune.structure.groups import IntArray

SMALLEST = float(np.finfo(np.float64).tiny)  # stands in for a limit of 0, which only a cost of 0 meets


class CombinedCost(Protocol):
    """A cost that follows from those of its parts, plan by plan; where no part ever falls, it does not either."""

    parts: tuple[CostModel, ...]

    def together(self, values: Sequence[FloatArray]) -> FloatArray:
        """One array of each part's costs → the cost, element by element."""
        ...

    def __call__(self, kept: IntArray) -> FloatArray:
        return self.together([part(kept) for part in self.parts])

    def along(self, kept: IntArray, group: int, levels: IntArray) -> FloatArray:
        return self.together([part.along(kept, group, levels) for part in self.parts])

    def changed(self, kept: IntArray, levels: IntArray) -> FloatArray:
        return self.together([changed(part, kept, levels) for part in self.parts])

    @property
    def never_falls(self) -> bool:
        return all(map(never_falls, self.parts))

    @property
    def smooth(self) -> bool:
        return all(map(smooth, self.parts))


@dataclass(frozen=True, eq=False)
class TightestShare(CombinedCost):
    """The largest cost ÷ limit: at most 1 where every limit is met, to the last bit, as division rounds correctly."""

    parts: tuple[CostModel, ...]
    """The costs that are bounded."""
    limits: tuple[float, ...]
    """The limit of each, in its own unit."""
    unit: str = "× the budget"
    """What the cost is counted in."""

    @property
    def name(self) -> str:
        return ",".join(part.name for part in self.parts)

    def together(self, values: Sequence[FloatArray]) -> FloatArray:
        shares = [value / max(limit, SMALLEST) for value, limit in zip(values, self.limits, strict=True)]
        return reduce(np.maximum, shares)


@dataclass(frozen=True, eq=False)
class WeightedSum(CombinedCost):
    """Σ weight · cost; weights are not negative."""

    name: str
    """What budgets and reports call the cost."""
    unit: str
    """What the cost is counted in."""
    parts: tuple[CostModel, ...]
    """The costs that are added up."""
    weights: tuple[float, ...]
    """Of each, at least 0."""

    def __post_init__(self) -> None:
        if min(self.weights) < 0:
            raise ValueError(f"weights of the cost {self.name!r} must not be negative, got {list(self.weights)}")

    def together(self, values: Sequence[FloatArray]) -> FloatArray:
        return reduce(add, [weight * value for value, weight in zip(values, self.weights, strict=True)])
