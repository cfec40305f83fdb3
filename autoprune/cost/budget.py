"""Budgets: a bound on one cost, written `cost:amount`."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from autoprune.cost.model import CostModel
from autoprune.structure.groups import Structure

COUNT_SUFFIXES = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}
BYTE_SUFFIXES = COUNT_SUFFIXES | {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """cost(plan) ≤ limit. `text` is how it was written, `dense` the unpruned network's cost, in the cost's unit."""

    text: str
    cost: CostModel
    limit: float
    dense: float

    @property
    def relative(self) -> float:
        """The limit as a fraction of the dense cost."""
        return self.limit / self.dense


def parse_budget(text: str, costs: Mapping[str, CostModel], structure: Structure) -> Budget:
    """`macs:0.5` (a fraction of dense, in (0, 1]), `params:60_000` or `bytes:200kB` (absolute) as a budget.

    Raises ValueError for an unknown cost or unit, and for a budget that no plan, or every plan, meets.
    """
    name, separator, amount = text.partition(":")
    match = re.fullmatch(r"([0-9][0-9_]*\.?[0-9]*(?:e[+-]?[0-9]+)?|\.[0-9]+)\s*([a-zA-Z]*)", amount.strip())
    if not separator or match is None:
        raise ValueError(f"budget {text!r} must be written cost:amount, such as macs:0.5 or bytes:200kB")
    if name not in costs:
        raise ValueError(f"budget {text!r} names the unknown cost {name!r}; the costs are {list(costs)}")
    cost, value, suffix = costs[name], float(match[1].replace("_", "")), match[2]
    suffixes = BYTE_SUFFIXES if cost.unit == "bytes" else COUNT_SUFFIXES
    if suffix not in suffixes:
        raise ValueError(f"budget {text!r} has the unknown unit {suffix!r}; the units are {[s for s in suffixes if s]}")
    dense, least = float(cost(structure.units)), float(cost(structure.floor))
    limit = value * dense if not suffix and value <= 1 else value * suffixes[suffix]
    lowest = math.ceil(1e4 * least / dense) / 1e4  # rounded up, so that it is feasible itself
    feasible = (
        f"feasible budgets lie between {name}:{lowest:.4f} and {name}:1 ({least:,.0f} to {dense:,.0f} {cost.unit})"
    )
    if limit < least:
        raise ValueError(f"budget {text!r} is {limit:,.0f} {cost.unit}, less than the smallest plan costs; {feasible}")
    if limit > dense:
        raise ValueError(f"budget {text!r} is {limit:,.0f} {cost.unit}, more than the dense network costs; {feasible}")
    return Budget(text, cost, limit, dense)
