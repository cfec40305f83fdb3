"""Costs in the form in which projection asks for them: of plans, and of a plan with one group changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from autoprune.cost.combined import CombinedCost
from autoprune.cost.model import BilinearCost, CostModel, FloatArray, Regular
from autoprune.cost.quadratic_view import quadratic_cost_view
from autoprune.structure.groups import IntArray


class CostView(Protocol):
    """A cost; its numbers are the cost model's own, to the last bit."""

    @property
    def never_falls(self) -> bool:
        """More units of any group never cost less, whatever the others keep."""
        ...

    @property
    def smooth(self) -> bool:
        """It has no steps."""
        ...

    def __call__(self, kept: IntArray) -> FloatArray:
        """The cost of every plan: kept [..., groups] → [...]."""
        ...

    def changed(self, kept: IntArray, levels: IntArray) -> FloatArray:
        """[groups]: what the plan costs if one group kept its one of `levels` instead: kept, levels [groups]."""
        ...


def cost_view_of(cost: CostModel) -> CostView:
    """The fastest form there is."""
    if isinstance(cost, BilinearCost):
        return quadratic_cost_view(cost)
    if isinstance(cost, CombinedCost):
        return CombinedCostView(cost, tuple(cost_view_of(part) for part in cost.parts))
    return GenericCostView(cost)


@dataclass(frozen=True, slots=True, eq=False)
class CombinedCostView:
    """Of several costs: each in its own form."""

    cost: CombinedCost
    forms: Sequence[CostView]

    @property
    def never_falls(self) -> bool:
        return all(form.never_falls for form in self.forms)

    @property
    def smooth(self) -> bool:
        return all(form.smooth for form in self.forms)

    def __call__(self, kept: IntArray) -> FloatArray:
        return self.cost.together([form(kept) for form in self.forms])

    def changed(self, kept: IntArray, levels: IntArray) -> FloatArray:
        return self.cost.together([form.changed(kept, levels) for form in self.forms])


@dataclass(frozen=True, slots=True, eq=False)
class GenericCostView:
    """Of any cost: it is asked for every plan."""

    cost: CostModel

    @property
    def never_falls(self) -> bool:
        return isinstance(self.cost, Regular) and self.cost.never_falls

    @property
    def smooth(self) -> bool:
        return isinstance(self.cost, Regular) and self.cost.smooth

    def __call__(self, kept: IntArray) -> FloatArray:
        return self.cost(kept)

    def changed(self, kept: IntArray, levels: IntArray) -> FloatArray:
        candidates = np.repeat(kept[None], len(kept), axis=0)
        np.fill_diagonal(candidates, levels)
        return self.cost(candidates)
