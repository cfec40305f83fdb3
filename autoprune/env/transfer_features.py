"""What a transferable policy sees: a row for every group, and which groups are neighbours.

Rows are padded to one number of groups, so that networks of any depth can be learned from together; nothing in them
refers to one network, and a policy that reads them group by group fits any number.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoprune.cost.budget import Budget
from autoprune.cost.model import FloatArray
from autoprune.env.episodes import HIGHEST, LOWEST, Observation
from autoprune.evaluation.curves import Curve
from autoprune.problem.group_features import GROUP_FEATURES
from autoprune.structure.groups import IntArray, Structure

DENSITIES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # at which curves are looked at
COSTS = ("macs", "params", "bytes", "latency", "other")  # that a budget may bound
NOTHING = 1e-3  # nats, that are added before a logarithm is taken: less than a thousandth is no difference

CURVE = tuple(f"lost_{round(100 * d)}" for d in DENSITIES)  # KL in nats when the group alone keeps so many %
ERROR = tuple(f"error_{round(100 * d)}" for d in DENSITIES)  # of its readers in closed form, at most 1
PLANS = ("prior", "uniform")  # that are evaluated before a policy acts
OF_PLANS = tuple(
    f"{plan}_{what}"
    for plan in PLANS
    for what in (
        "density",  # of the group
        "lost",  # KL in nats of the whole plan
        "joint",  # log10 of that over the sum of what its groups lose alone
    )
)
ROW_FEATURES = (
    *GROUP_FEATURES,
    *CURVE,
    *ERROR,
    *OF_PLANS,
    "budget",  # limit over dense
    *(f"cost_{name}" for name in COSTS),  # 1 for the cost that the budget bounds
    "present",  # 1 for a group, 0 for padding
)
IN_NATS = (*CURVE, *(f"{plan}_lost" for plan in PLANS))


def column(name: str) -> int:
    """Where a feature stands in a row."""
    return ROW_FEATURES.index(name)


@dataclass(frozen=True, slots=True, eq=False)
class ReferencePlan:
    """A plan inside the budget that was evaluated."""

    kept: IntArray
    """Units of every group [groups]."""
    lost: float
    """The KL to the dense network's outputs, in nats."""


def transfer_features(
    structure: Structure,
    features: FloatArray,
    *,
    errors: Mapping[str, FloatArray],
    curves: Mapping[str, Curve],
    budget: Budget,
    prior: ReferencePlan,
    uniform: ReferencePlan,
) -> FloatArray:
    """[groups, len(ROW_FEATURES)] of a network under a budget.

    Args:
        structure: The network's groups and layers.
        features: group_features of this budget.
        errors: Group → [units + 1] in closed form.
        curves: Every group's KL, pruned alone.
        budget: The bound, relative to the dense network.
        prior: The plan that actions correct.
        uniform: The uniform plan, judged.
    """
    groups = structure.groups
    lost = [curves[group.name].at([round(d * group.units) for d in DENSITIES]) for group in groups]
    closed = [_at_densities(errors[group.name]) for group in groups]
    of_plans = [part for plan in (prior, uniform) for part in _of_plan(structure, plan, curves)]
    bounded = budget.cost.name if budget.cost.name in COSTS else COSTS[-1]
    same = [budget.relative, *(float(name == bounded) for name in COSTS), 1.0]
    rows = [features, np.array(lost), np.array(closed), np.stack(of_plans, axis=1), np.tile(same, (len(groups), 1))]
    return np.asarray(np.clip(np.concatenate(rows, axis=1), LOWEST, HIGHEST))


def _of_plan(structure: Structure, plan: ReferencePlan, curves: Mapping[str, Curve]) -> list[FloatArray]:
    """OF_PLANS, [groups] each."""
    alone = sum(
        float(curves[group.name].at([int(kept)])[0]) for group, kept in zip(structure.groups, plan.kept, strict=True)
    )
    joint = np.log10((plan.lost + NOTHING) / (alone + NOTHING))
    density = np.maximum(plan.kept, 0.5) / structure.units
    return [density, np.full(len(density), plan.lost), np.full(len(density), joint)]


def neighbours(structure: Structure) -> FloatArray:
    """[groups, groups]: 1 where a layer reads the one group's units and writes the other's, either way; 0 elsewhere."""
    reads: dict[str, set[int]] = {}
    writes: dict[str, set[int]] = {}
    for index, group in enumerate(structure.groups):
        for member in group.members:
            (reads if member.axis == "in" else writes).setdefault(member.layer, set()).add(index)
    edges = np.zeros((len(structure.groups),) * 2)
    for layer, readers in reads.items():
        for one in readers:
            for other in writes.get(layer, set()) - {one}:
                edges[one, other] = edges[other, one] = 1.0
    return edges


def padded(rows: FloatArray, edges: FloatArray, *, groups: int) -> Observation:
    """One flat observation [groups · (features + groups)]: each group's row, and its neighbours. Padding is zeros.

    Args:
        rows: What is observed of each group [groups of the network, features].
        edges: 1 where two groups are neighbours, else 0 [groups of the network, groups of the network].
        groups: How many groups the observation has room for.

    Raises:
        ValueError: There are more groups than that.
    """
    count = len(rows)
    if count > groups:
        raise ValueError(f"{count} groups do not fit observations of {groups}")
    observation = np.zeros((groups, rows.shape[1] + groups), np.float32)
    observation[:count, : rows.shape[1]] = rows
    observation[:count, rows.shape[1] : rows.shape[1] + count] = edges
    return observation.ravel()


def _at_densities(errors: FloatArray) -> FloatArray:
    """errors [units + 1], by how many units are kept → at DENSITIES."""
    units = len(errors) - 1
    return np.interp(np.multiply(DENSITIES, units), np.arange(units + 1), errors)
