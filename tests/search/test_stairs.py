"""Searches under costs with steps that may fall, and under several budgets at once: no plan they return exceeds one."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.cost.budget import parse_budget
from autoprune.cost.model import CostModel
from autoprune.cost.peak_memory import peak_memory
from autoprune.cost.projection import Projector
from autoprune.evaluation.curves import Curve
from autoprune.prior.level_switches import Switch
from autoprune.prior.sensitivity_plan import sensitivity_plan
from autoprune.search import evolution, global_ranking, greedy
from autoprune.search import random_search as random
from autoprune.structure.groups import Structure
from autoprune.task.task import plain_forward
from tests.cost.projectors import structure_with
from tests.cost.stairs import assert_filled, meets_all, staircases
from tests.models import PRUNABLE
from tests.search.toys import curves_of, toy


def structure_on(projector: Projector) -> Structure:
    return structure_with([tuple(levels.tolist()) for levels in projector.levels])


@given(staircases(), st.integers(0, 2**16), st.sampled_from([0.02, 0.3, 1.0]))
def test_switches_stay_inside(projector: Projector, seed: int, step: float) -> None:
    rng, switch = np.random.default_rng(seed), Switch(projector, step)
    kept = projector.project(np.ones(len(projector.units)))
    for _ in range(5):
        kept = switch(kept, rng)
        assert meets_all(projector, kept)
        kept = projector.fill(kept, kept + rng.random(len(kept)))
        assert_filled(projector, kept)


@given(staircases(), st.integers(0, 2**16))
def test_sensitivity_plans_are_filled(projector: Projector, seed: int) -> None:
    structure = structure_on(projector)
    plan = sensitivity_plan(structure, projector, curves_of(structure, np.random.default_rng(seed)))
    assert_filled(projector, np.array(plan.kept))


@settings(max_examples=4)
@given(staircases(), st.integers(0, 2**16))
def test_what_searches_return_is_filled(projector: Projector, seed: int) -> None:
    structure = structure_on(projector)
    scores = {g.name: torch.linspace(1, 2, g.units) for g in structure.groups}
    searches = (
        (greedy.search, {"step": 0.3}),
        (global_ranking.search, {"scale": "none"}),
        (random.search, {"least_density": 0.02}),
        (evolution.search, {"start": "uniform", "offspring": 4, "switches": 2, "step": 0.1}),
    )
    for search, given_ in searches:
        problem = toy(structure, projector, Path(), loss=lambda kept: -float(sum(kept)), limit=24, scores=scores)
        plan = search(problem, rng=np.random.default_rng(seed), **given_)  # type: ignore[operator]
        if search is not greedy.search:  # it ends where it stands when its evaluations do
            assert_filled(projector, np.array(plan.kept))
        assert meets_all(projector, np.array(plan.kept))


def bounded(*budgets: str) -> tuple[Structure, Projector]:
    """The digits' network in steps of 8 units, whose MACs, parameters and memory may be bounded."""
    network = PRUNABLE["digits_net"]
    structure = network.structure()
    costs: dict[str, CostModel] = {
        "macs": network.costs().macs(),
        "params": network.costs().params(),
        "peak_memory": peak_memory(network.model(), structure, network.inputs(), forward=plain_forward),
    }
    return structure, Projector(structure, parse_budget(budgets, costs, structure))


@pytest.mark.parametrize("budgets", [("macs:0.5", "params:0.4"), ("macs:0.6", "peak_memory:0.5")], ids=",".join)
@pytest.mark.parametrize("seed", range(2))
def test_under_two_budgets_the_sensitivity_plan_is_near_the_best(budgets: tuple[str, ...], seed: int) -> None:
    structure, projector = bounded(*budgets)
    rng, curves = np.random.default_rng(seed), {}
    for group in structure.groups:
        loss = np.linspace(1, 0, len(group.levels)) ** rng.uniform(1, 3) * rng.uniform(0.1, 3)
        curves[group.name] = Curve(np.array(group.levels), tuple(loss.tolist()), ())
    coarse = [np.array([*range(4, g.units, 4), g.units]) for g in structure.groups]
    every = np.array(list(itertools.product(*(levels.tolist() for levels in coarse))))
    inside = every[projector.budget.cost(every) <= projector.budget.limit]
    losses = sum(np.interp(inside[:, g], curves[n].kept, curves[n].loss) for g, n in enumerate(structure.names))
    plan = sensitivity_plan(structure, projector, curves)
    found = sum(float(curves[n].at([k])[0]) for n, k in zip(plan.groups, plan.kept, strict=True))
    assert_filled(projector, np.array(plan.kept))
    assert found <= 1.1 * float(np.min(losses))
