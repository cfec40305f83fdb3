"""Budgets: bounds on costs, each written `cost:amount`."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from autoprune.cost.cheapest import cheapest_plan
from autoprune.cost.combined import TightestShare
from autoprune.cost.cost_units import amount, suffixes, written
from autoprune.cost.model import CostModel
from autoprune.ranges import check_value
from autoprune.structure.groups import IntArray, Structure

TIMES_LESS = "x"  # decode:1.3x is dense / 1.3
FINEST = 10_000  # th of dense: to which suggested amounts are rounded up


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """cost(plan) ≤ limit.

    Several budgets are one: the cost is the largest share of any limit that a plan uses, and the limit is 1.
    """

    text: str
    """As it was written, such as `macs:0.5`."""
    cost: CostModel
    """What is bounded."""
    limit: float
    """In the cost's unit."""
    dense: float
    """The unpruned network's cost, in the same unit."""
    several: tuple["Budget", ...] = field(default=(), repr=False)
    """Of several budgets, each; of one, none."""

    @property
    def relative(self) -> float:
        """The limit as a fraction of the dense cost; of several budgets, the smallest."""
        return self.limit / self.dense

    @property
    def bounds(self) -> tuple["Budget", ...]:
        """Every single one."""
        return self.several or (self,)

    @property
    def tightest(self) -> "Budget":
        """Of several, the one that takes most of the dense network away."""
        return min(self.bounds, key=lambda bound: bound.relative)

    def meets(self, kept: IntArray) -> bool:
        """Whether the plan is inside: kept [groups]."""
        return float(self.cost(np.asarray(kept))) <= self.limit


def parse_budget(budget: str | Sequence[str], costs: Mapping[str, CostModel], structure: Structure) -> Budget:
    """`macs:0.5` (a fraction of dense, in (0, 1]), `latency:1.3x` (dense over 1.3) or `bytes:200kB`, as a budget.

    Args:
        budget: One, or several to be met together, in one text with commas or as a sequence.
        costs: Name → cost.
        structure: The groups of the network whose plans are bounded.

    Raises:
        ValueError: A cost or unit is unknown, no plan meets it, or the dense network meets all.

    >>> parse_budget("macs:0.5,bytes:200kB", costs, structure).tightest.text
    'macs:0.5'
    """
    check_value(budget, str | Sequence[str], "the budget")
    texts = [text.strip() for text in (budget.split(",") if isinstance(budget, str) else budget)]
    if not texts:
        raise ValueError("an empty list is no budget; give one, such as macs:0.5, or leave it out")
    bounds = [_read(text, costs, structure) for text in texts]
    names = [bound.cost.name for bound in bounds]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"budget {','.join(texts)!r} bounds {', '.join(twice)} twice; give each cost one amount")
    slack = [bound for bound in bounds if bound.limit > bound.dense]
    if len(slack) == len(bounds):
        raise ValueError(_beyond(slack[0], structure))
    if len(bounds) == 1:
        return bounds[0]
    cost = TightestShare(tuple(bound.cost for bound in bounds), tuple(bound.limit for bound in bounds))
    together = Budget(",".join(texts), cost, 1.0, float(cost(structure.units)), tuple(bounds))
    _check_together(together, structure)
    return together


def _read(text: str, costs: Mapping[str, CostModel], structure: Structure) -> Budget:
    """One budget that some plan meets; the dense network may meet it too."""
    name, value, suffix = read_amount(text)
    if name not in costs:
        way_out = "; set device=this_cpu, or another of conf/device" if name == "latency" else ""
        raise ValueError(f"budget {text!r} names the unknown cost {name!r}; the costs are {list(costs)}{way_out}")
    cost = costs[name]
    units = suffixes(cost.unit)
    if suffix not in (*units, TIMES_LESS):
        raise ValueError(
            f"budget {text!r} has the unknown unit {suffix!r}; the units are {[s for s in units if s]}, and "
            f"{TIMES_LESS!r} for so many times less than dense"
        )
    if suffix == TIMES_LESS and value < 1:
        raise ValueError(f"budget {text!r}: {value}{TIMES_LESS} less than dense is more; write a number above 1")
    dense = float(cost(structure.units))
    if dense <= 0:
        raise ValueError(f"budget {text!r} bounds {name}, of which the dense network has none; bound another cost")
    if suffix == TIMES_LESS:
        limit = dense / value
    else:
        limit = value * dense if not suffix and value <= 1 else value * units[suffix]
    budget = Budget(text, cost, limit, dense)
    if budget.limit < _least(budget, structure):
        raise ValueError(
            f"budget {text!r} is {written(budget.limit)} {cost.unit}, less than the smallest plan costs; "
            f"{_feasible(budget, structure)}"
        )
    return budget


def read_amount(text: str) -> tuple[str, float, str]:
    """The cost, the amount and the unit's suffix of one budget. Raises ValueError where it is not written so."""
    name, separator, amount = text.strip().partition(":")
    match = re.fullmatch(r"([0-9][0-9_]*\.?[0-9]*(?:e[+-]?[0-9]+)?|\.[0-9]+)\s*([a-zA-Zµ]*)", amount.strip())
    if not name or not separator or match is None:
        raise ValueError(f"budget {text!r} must be written cost:amount, such as macs:0.5 or bytes:200kB")
    return name, float(match[1].replace("_", "")), match[2]


def _beyond(budget: Budget, structure: Structure) -> str:
    return (
        f"budget {budget.text!r} is {written(budget.limit)} {budget.cost.unit}, more than the dense network costs; "
        f"{_feasible(budget, structure)}"
    )


def _feasible(budget: Budget, structure: Structure) -> str:
    name, least = budget.cost.name, _least(budget, structure)
    coarse = any(group.levels[0] > 1 for group in structure.groups)
    return (
        f"feasible budgets lie between {name}:{_rounded(least / budget.dense)} and {name}:1 "
        f"({written(least)} to {written(budget.dense)} {budget.cost.unit})"
        + ("; structure.round_to=1 structure.min_units=1 allow less" if coarse else "")
    )


def least_share(cost: CostModel, structure: Structure) -> float:
    """What the cheapest plan costs, over dense.

    Args:
        cost: The cost that a budget would limit.
        structure: Whose groups' lowest levels the cheapest plan is made of.

    Returns:
        In (0, 1] for a cost that grows with the units.
    """
    return float(cost(cheapest_plan(cost, _levels(structure))) / cost(structure.units))


def _least(budget: Budget, structure: Structure) -> float:
    return float(budget.cost(cheapest_plan(budget.cost, _levels(structure))))


def _check_together(budget: Budget, structure: Structure) -> None:
    """Raises ValueError where no plan is found that meets all; it says which are exceeded, and what one plan meets."""
    kept = cheapest_plan(budget.cost, _levels(structure))
    if budget.meets(kept):
        return
    over = [bound for bound in budget.bounds if not bound.meets(kept)]
    met = [_used(bound, kept) if bound in over else bound.text for bound in budget.bounds]
    exceeded = " and ".join(
        f"{bound.text!r} ({written(float(bound.cost(kept)))} of {written(bound.limit)} {bound.cost.unit})"
        for bound in over
    )
    raise ValueError(
        f"each of the budgets {budget.text!r} can be met, but no plan was found that meets all: the nearest one "
        f"exceeds {exceeded}; together feasible are {','.join(met)}"
    )


def _used(budget: Budget, kept: IntArray) -> str:
    """The budget that the plan just meets."""
    cost = float(budget.cost(kept))
    used = _rounded(cost / budget.dense) if cost < budget.dense else amount(cost, budget.cost.unit)
    return f"{budget.cost.name}:{used}"


def _rounded(fraction: float) -> str:
    """Up, so that what is feasible stays so."""
    return f"{math.ceil(FINEST * fraction) / FINEST:.4f}"


def _levels(structure: Structure) -> list[IntArray]:
    return [np.array(group.levels, np.int64) for group in structure.groups]
