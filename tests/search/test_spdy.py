"""Coefficients of one are the sensitivity plan; only their ratios matter."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import default_rng

from autoprune.evaluation.curves import single_group_curves
from autoprune.prior.starts import first_plan, price
from autoprune.search import spdy
from autoprune.search.spdy import rescaled_plan
from tests.search.known import KNOWN


@pytest.mark.parametrize("name", ["chain", "knapsack", "mixed"])
def test_it_begins_at_the_sensitivity_plan(name: str, tmp_path: Path) -> None:
    seen: list[Any] = []
    problem = KNOWN[name].problem(
        tmp_path, limit=price(KNOWN[name].problem(tmp_path, limit=99), start="sensitivity"), seen=seen
    )
    plan = spdy.search(problem, rng=default_rng(0), sigma=1.0, share=0.5)
    assert [phase for phase, _ in seen] == ["curves"] * (len(seen) - 1) + ["search"]
    other = KNOWN[name].problem(tmp_path, limit=99)
    assert seen[-1][1].plan == first_plan(other, start="sensitivity")
    assert problem.objective.best is not None
    assert plan == problem.objective.best.plan


def test_only_ratios_of_coefficients_matter(tmp_path: Path) -> None:
    known = KNOWN["separable"]
    problem = known.problem(tmp_path, limit=99)
    curves = single_group_curves(known.structure, problem.objective.evaluate)
    logarithms = default_rng(0).normal(0, 1, 5)
    assert rescaled_plan(problem, curves, logarithms) == rescaled_plan(problem, curves, logarithms + np.log(8))
    heavier = np.array([0.0, 0, 0, 20, 0])  # whoever loses most for a unit keeps all
    assert rescaled_plan(problem, curves, heavier).kept[3] == 8
