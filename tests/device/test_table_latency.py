import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autoprune.cost.budget import parse_budget
from autoprune.cost.projection import Projector
from autoprune.device.agreement import agreement
from autoprune.device.correction import TERMS, Correction, fitted
from autoprune.device.device import on_steps, preferred_levels
from autoprune.device.profiler import random_plans
from autoprune.device.table_latency import TableLatency
from autoprune.device.widths import Widths, widths_of
from autoprune.structure.graph import find_structure
from autoprune.task import networks
from tests.models import PRUNABLE, random_plan

NAMES = ("residual", "grouped", "separable", "plain")
CASES = {name: (PRUNABLE[name].structure(), PRUNABLE[name].model(), PRUNABLE[name].inputs()) for name in NAMES}
WIDTHS = {name: widths_of(model, structure, inputs) for name, (structure, model, inputs) in CASES.items()}


def random_tables(widths: Widths, *, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.random((ins[1] + 1, 1 if layer.square else outs[1] + 1))
        for layer, (ins, outs) in zip(widths.layers, widths.ranges, strict=True)
    ]


def slowly(widths: Widths, tables: list[np.ndarray], kept: np.ndarray) -> float:
    """The sum, cut by cut."""
    inputs, outputs = widths.of(kept)
    total = 0.0
    for place, index in enumerate(widths.index):
        column = 0 if widths.layers[index].square else outputs[place]
        total += tables[index][inputs[place], column] * widths.counts[place]
    return total


@given(seed=st.integers(0, 10**6))
@pytest.mark.parametrize("name", NAMES)
def test_a_latency_is_the_sum_of_its_pieces(name: str, seed: int) -> None:
    widths, structure = WIDTHS[name], CASES[name][0]
    tables = random_tables(widths, seed=seed)
    latency = TableLatency.of(widths, tables, constant=0.25)
    plans = np.array([random_plan(structure, seed=seed + i).kept for i in range(3)])
    expected = [slowly(widths, tables, kept) + 0.25 for kept in plans]
    assert np.allclose(latency(plans), expected)
    assert np.allclose(latency(plans[0]), expected[0])
    for group, each in enumerate(structure.groups):
        levels = np.array(each.levels)
        changed = np.repeat(plans[:, None], len(levels), axis=1)
        changed[..., group] = levels
        assert np.allclose(latency.along(plans, group, levels), latency(changed))


def test_ten_thousand_plans_are_looked_up_at_once() -> None:
    """As many functions are called for them as for ten, so no loop goes over plans; no clock has to say so."""
    model, inputs = networks.resnet20().eval(), torch.randn(1, 1, 28, 28)
    structure = find_structure(model, inputs)
    widths = widths_of(model, structure, inputs)
    latency = TableLatency.of(widths, random_tables(widths, seed=0))
    calls: list[int] = []
    for plans in (random_plans(structure, count, seed=0) for count in (10, 10_000)):
        events: list[str] = []
        sys.setprofile(lambda frame, event, argument, events=events: events.append(event))  # type: ignore[misc]
        try:
            latency(plans)
        finally:
            sys.setprofile(None)
        calls.append(len(events))
    assert calls[0] == calls[1] > 10


@given(seed=st.integers(0, 10**6), share=st.floats(0.1, 0.95))
def test_plans_meet_a_budget_in_latency(seed: int, share: float) -> None:
    """Also where fewer channels cost more, as they do where they are no multiple of 4."""
    structure, tables = CASES["residual"][0], random_tables(WIDTHS["residual"], seed=seed)
    tables = [table.cumsum(0).cumsum(1) for table in tables]
    for table in tables:
        table[np.arange(len(table)) % 4 > 0] *= 1.5
    latency = TableLatency.of(WIDTHS["residual"], tables, constant=1.0)
    dense = float(latency(structure.units))
    every = np.stack(np.meshgrid(*[group.levels for group in structure.groups], indexing="ij"), -1)
    least = float(latency(every).min())
    limit = least + share * (dense - least)
    projector = Projector(structure, parse_budget(f"latency:{limit:.6f}ms", {"latency": latency}, structure))
    kept = projector.project(np.random.default_rng(seed).random((4, len(structure.groups))) + 0.01)
    assert (latency(kept) <= limit + 1e-9).all()


def test_the_factors_that_made_the_measurements_are_found() -> None:
    name = "separable"
    widths, tables = WIDTHS[name], [1 + table for table in random_tables(WIDTHS[name], seed=3)]
    true = Correction((0.3, 1.4, 0.8, 1e-4, -2e-4, 3e-4))
    kept = random_plans(CASES[name][0], 60, seed=1)
    measured = true.applied(widths, tables)(kept)
    found = fitted(widths, tables, kept, measured, blocked=True)
    others = random_plans(CASES[name][0], 60, seed=2)
    predicted = found.applied(widths, tables)(others)
    assert agreement(predicted, true.applied(widths, tables)(others)).error < 0.005
    assert len(found.factors) == len(TERMS)


def test_pieces_that_just_add_up_need_no_correction() -> None:
    widths, tables = WIDTHS["residual"], random_tables(WIDTHS["residual"], seed=5)
    kept = random_plans(CASES["residual"][0], 20, seed=1)
    measured = TableLatency.of(widths, tables)(kept)
    found = fitted(widths, tables, kept, measured, blocked=False)
    assert np.allclose(found.factors, (0, 1, 1, 0, 0, 0), atol=1e-6)


def test_a_runtime_without_blocks_has_no_factor_for_them() -> None:
    widths, tables = WIDTHS["residual"], random_tables(WIDTHS["residual"], seed=5)
    kept = random_plans(CASES["residual"][0], 20, seed=1)
    noisy = TableLatency.of(widths, tables)(kept) * np.random.default_rng(0).uniform(0.9, 1.1, 20)
    assert fitted(widths, tables, kept, noisy, blocked=False).factors[4:] == (0.0, 0.0)
    with pytest.raises(ValueError, match="at least 8 measured plans, got 7"):
        fitted(widths, tables, kept[:7], noisy[:7], blocked=False)


class Steps:
    """A cost that one group alone decides about."""

    name, unit = "steps", "ms"

    def __init__(self, of: dict[int, float]) -> None:
        self._of = of

    def __call__(self, kept: np.ndarray) -> np.ndarray:
        return np.vectorize(self._of.__getitem__)(np.asarray(kept)[..., 0])

    def along(self, kept: np.ndarray, group: int, levels: np.ndarray) -> np.ndarray:
        answer = np.array([self._of[int(level)] if group == 0 else 1.0 for level in levels])
        return np.broadcast_to(answer, (*np.asarray(kept).shape[:-1], len(levels)))


def test_preferred_levels_are_the_tops_of_steps() -> None:
    structure = CASES["residual"][0]
    group = structure.groups[0]
    assert group.units == 8
    stairs = {1: 2.0, 2: 1.0, 3: 2.5, 4: 2.0, 5: 3.5, 6: 3.01, 7: 3.0, 8: 3.0}
    assert preferred_levels(Steps(stairs), structure, group) == (2, 4, 8)
    slope = {k: float(k) for k in range(1, 9)}
    assert preferred_levels(Steps(slope), structure, group) == tuple(range(1, 9))
    flat = dict.fromkeys(range(1, 9), 1.0)
    assert preferred_levels(Steps(flat), structure, group) == (8,)
    assert on_steps(structure, Steps(flat)).groups[0].levels == (1, 8)


@given(costs=st.lists(st.floats(0.1, 10), min_size=8, max_size=8))
def test_nothing_wider_costs_as_little_as_a_preferred_level(costs: list[float]) -> None:
    structure = CASES["residual"][0]
    levels = preferred_levels(
        Steps(dict(zip(range(1, 9), costs, strict=True))), structure, structure.groups[0], slack=0
    )
    assert levels[-1] == 8
    for level in levels:
        assert all(costs[wider - 1] > costs[level - 1] for wider in range(level + 1, 9))


def test_agreement_is_known_for_known_numbers() -> None:
    found = agreement(np.array([1.1, 2.0, 2.7]), np.array([1.0, 2.0, 3.0]))
    assert (round(found.error, 4), round(found.largest, 4), round(found.spearman, 4)) == (0.0667, 0.1, 1.0)
    assert agreement(np.array([1.0, 2, 3, 4]), np.array([4.0, 3, 2, 1])).spearman == pytest.approx(-1)
