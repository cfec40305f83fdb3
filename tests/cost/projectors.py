"""Projectors of networks and of made-up costs, and what must hold of those who decide inside their budgets."""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from hypothesis import strategies as st

from autoprune.cost.allocation import SequentialAllocator
from autoprune.cost.budget import Budget
from autoprune.cost.model import CostModel, FloatArray, plans_along
from autoprune.cost.projection import Projector
from autoprune.structure.groups import Group, IntArray, Structure
from autoprune.task import networks
from tests.models import PRUNABLE, Network

EPISODES = 3
Rows = tuple[IntArray, IntArray, IntArray]

NETWORKS = {
    **{name: PRUNABLE[name] for name in ("residual", "dense", "grouped", "shared_layer", "digits_net")},
    "resnet20": Network(networks.resnet20, (1, 28, 28)),
}


@cache
def structure_of(name: str) -> Structure:
    return NETWORKS[name].structure()


def on_multiples(structure: Structure, round_to: int, *, start: int = 0) -> Structure:
    """The same groups, keeping multiples of `round_to` of at least `start` units, or all."""
    first = max(start, round_to)
    groups = [replace(g, levels=tuple(sorted({*range(first, g.units, round_to), g.units}))) for g in structure.groups]
    return replace(structure, groups=tuple(groups))


def costs_of(structure: Structure) -> tuple[CostModel, ...]:
    """Those of the network that the structure is of, whatever its levels."""
    costs = next(n for n in NETWORKS.values() if n.structure().layers is structure.layers).costs()
    return costs.macs(), costs.params(), costs.parameter_bytes()


def budget_of(structure: Structure, *, fraction: float, cost: int = 0) -> Budget:
    """Between the cheapest plan (0) and the dense network (1)."""
    model = costs_of(structure)[cost]
    least, dense = float(model(structure.floor)), float(model(structure.units))
    return Budget("by hand", model, least + fraction * (dense - least), dense)


@st.composite
def projectors(draw: st.DrawFn) -> Projector:
    """Any network, cost, multiple and minimum, and a budget anywhere in the feasible range, its ends included."""
    name = draw(st.sampled_from(list(NETWORKS)))
    round_to = draw(st.sampled_from([1, 2, 3, 8]) if name in ("digits_net", "resnet20") else st.sampled_from([1, 2]))
    structure = on_multiples(structure_of(name), round_to, start=draw(st.integers(0, 3)))
    fraction = draw(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1)))
    return Projector(structure, budget_of(structure, fraction=fraction, cost=draw(st.integers(0, 2))))


def on_levels(projector: Projector, kept: IntArray) -> bool:
    return all(k in levels for k, levels in zip(kept, projector.levels, strict=True))


def one_level_up(projector: Projector, kept: IntArray) -> list[IntArray]:
    """The plans with one more level of one group."""
    plans = []
    for group, level in enumerate(projector.next_levels(kept)):
        if level > kept[group]:
            plans.append(kept.copy())
            plans[-1][group] = level
    return plans


def assert_tight(projector: Projector, kept: IntArray) -> None:
    """Inside the budget, and one more level of some group would be outside, unless nothing is missing."""
    assert on_levels(projector, kept)
    cost, limit = projector.budget.cost(kept), projector.budget.limit
    assert cost <= limit
    more = one_level_up(projector, kept)
    assert not more or cost == limit or any(projector.budget.cost(plan) > limit for plan in more)


@dataclass(frozen=True)
class Hidden:
    """A cost that does not show that it is bilinear."""

    within: CostModel
    name: str = "hidden"
    unit: str = "units"

    def __call__(self, kept: IntArray) -> FloatArray:
        return self.within(kept)

    def along(self, kept: IntArray, group: int, levels: IntArray) -> FloatArray:
        return self.within.along(kept, group, levels)


def structure_with(levels: list[tuple[int, ...]]) -> Structure:
    """Groups without layers: a made-up cost does not ask for them."""
    return Structure(tuple(Group(f"group{i}", "channel", each[-1], (), each) for i, each in enumerate(levels)), ())


def projector_for(structure: Structure, cost: CostModel, fraction: float, *, past: float = 0.0) -> Projector:
    """The budget lies at `fraction` between the cheapest plan and the dense network, `past` beyond a whole number."""
    least, dense = float(cost(structure.floor)), float(cost(structure.units))
    limit = np.floor(least + fraction * (dense - least)) + past
    return Projector(structure, Budget("by hand", cost, float(np.clip(limit, least, dense)), dense))


@dataclass(frozen=True)
class Stairs:
    """A made-up latency: every group runs in tiles of 4 units, and the two neighbours of a layer share one."""

    name: str = "stairs"
    unit: str = "ms"

    def __call__(self, kept: IntArray) -> FloatArray:
        tiles = -(-np.asarray(kept) // 4)
        return 0.25 * tiles.sum(axis=-1) + 0.125 * (tiles[..., 1:] * tiles[..., :-1]).sum(axis=-1)

    def along(self, kept: IntArray, group: int, levels: IntArray) -> FloatArray:
        return self(plans_along(kept, group, levels))


def rows_of(outputs: IntArray, inputs: IntArray, weights: IntArray, per_output: IntArray, constant: int) -> Rows:
    """Σ weights · outputs · inputs + per_output · outputs + constant, as the rows of a bilinear cost."""
    one = np.eye(1, outputs.shape[1], outputs.shape[1] - 1, dtype=np.int64)
    ones = np.repeat(one, len(outputs), axis=0)
    rows = (outputs, outputs, one), (inputs, ones, one)
    return np.vstack(rows[0]), np.vstack(rows[1]), np.concatenate([weights, per_output, [constant]])


def summed(rows: Rows, kept: IntArray) -> FloatArray:
    """What a bilinear cost of these rows is, row by row in whole numbers."""
    outputs, inputs = (kept @ side[:, :-1].T + side[:, -1] for side in rows[:2])
    return np.asarray((outputs * inputs) @ rows[2], np.float64)


def plans_changed(kept: IntArray, levels: IntArray) -> IntArray:
    """[groups, groups]: in each plan, one group keeps its level instead."""
    plans = np.repeat(kept[None], len(kept), axis=0)
    np.fill_diagonal(plans, levels)
    return plans


def targets_of(projector: Projector) -> st.SearchStrategy[FloatArray]:
    """[groups, episodes] in units, some outside of what a group has."""
    groups = len(projector.units)
    values = st.lists(st.floats(-0.5, 1.5), min_size=groups * EPISODES, max_size=groups * EPISODES)
    return values.map(lambda v: np.array(v).reshape(groups, EPISODES) * projector.units[:, None])


def assert_as_the_projector_says(projector: Projector, allocator: SequentialAllocator, targets: FloatArray) -> None:
    """Decides all groups: targets [groups, EPISODES]."""
    kept = np.tile(projector.units, (EPISODES, 1))
    cost, groups = projector.budget.cost, len(projector.units)
    for group in range(groups):
        assert allocator.group == group
        least, most = projector.interval(kept, group)
        assert allocator.interval.tolist() == [least.tolist(), most.tolist()]
        later = np.arange(groups) >= group
        extremes = [cost(np.where(later, ends, kept)) for ends in (projector.floor, projector.units)]
        assert allocator.costs.tolist() == [extreme.tolist() for extreme in extremes]
        kept[:, group] = projector.snap(np.clip(targets[group], least, most), group)
        assert allocator.decide(targets[group]).tolist() == kept[:, group].tolist()
    assert allocator.group == groups
    assert allocator.kept.tolist() == kept.tolist()
    assert allocator.costs.tolist() == [cost(kept).tolist()] * 2
    for plan in kept:
        assert_tight(projector, plan)
