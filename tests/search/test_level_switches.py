"""Where searches begin, and the plans near a plan."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng

from autoprune.cost.projection import Projector
from autoprune.prior.level_switches import Switch, log_midpoint_target, random_neighbour
from autoprune.prior.starts import first_plan
from autoprune.prior.switch_batches import switched, switched_neighbours
from autoprune.prior.uniform_plan import uniform_plan
from autoprune.structure.groups import Structure
from tests.search.known import KNOWN
from tests.search.toys import additive, depth, filled_on, structures, weights


def any_filled(projector: Projector, seed: int) -> Any:
    return projector.project(default_rng(seed).uniform(0.05, 1, len(projector.units)))


@given(structures(), st.integers(0, 2**16))
def test_a_log_midpoint_target_projects_onto_its_plan(parts: tuple[Structure, Projector], seed: int) -> None:
    _, projector = parts
    kept = any_filled(projector, seed)
    assert projector.project(log_midpoint_target(projector, kept)).tolist() == kept.tolist()


def test_a_log_midpoint_target_is_as_far_from_a_blocks_two_levels() -> None:
    _, projector = additive(depth("b0"), depth("b1"), weights("m", units=4, levels=(2, 4)), prices=[1] * 3, limit=4)
    gone, there, low = log_midpoint_target(projector, np.array([0, 1, 2])).tolist()
    assert (gone, there, low) == pytest.approx((0.5**0.5, 2**0.5, 8**0.5 / 4))
    assert log_midpoint_target(projector, np.array([0, 0, 4]))[2] == pytest.approx(2**0.5)


@given(structures(), st.integers(0, 2**16))
def test_a_neighbour_is_filled_and_another_plan(parts: tuple[Structure, Projector], seed: int) -> None:
    _, projector = parts
    kept = any_filled(projector, seed)
    near = random_neighbour(kept, Switch(projector, 0.1), default_rng(seed))
    assert filled_on(projector, near)
    if (near == kept).all():  # then there is none that a switch leads to
        moved = [Switch(projector, 0.1)(kept, default_rng(other)) for other in range(10)]
        assert all((projector.fill(m, m.astype(float)) == kept).all() for m in moved)


class Drawn:
    """Draws orders that are given, for one plan or for all."""

    def __init__(self, orders: Any) -> None:
        self.orders = orders

    def permutation(self, _: int) -> Any:
        return self.orders

    def permuted(self, _: Any, axis: int) -> Any:
        return self.orders


@given(structures(), st.integers(0, 2**16), st.sampled_from([0.06, 0.25, 0.9]))
def test_switches_of_many_plans_are_those_of_each(parts: tuple[Structure, Projector], seed: int, share: float) -> None:
    _, projector = parts
    rng, groups = default_rng(seed), len(projector.units)
    targets = rng.uniform(0.05, 1, (6, groups))
    kept = projector.project(targets)
    assert (kept == [projector.project(row) for row in targets]).all(), "plans are filled together as alone"
    orders = rng.permuted(np.tile(np.arange(groups), (6, 1)), axis=1)
    steps = np.tile(np.maximum(1, share * projector.units), (6, 1))
    moved = switched(kept, projector, steps, Drawn(orders))  # type: ignore[arg-type]
    alone = [Switch(projector, share)(k, Drawn(order)) for k, order in zip(kept, orders, strict=True)]  # type: ignore[arg-type]
    assert (moved == alone).all()
    near = switched_neighbours(kept, projector, shares=(0.06, share), most=4, rng=rng)
    assert all(filled_on(projector, each) for each in near)


def test_a_start_is_what_it_says_and_charged(tmp_path: Path) -> None:
    known, seen = KNOWN["mixed"], list[Any]()
    problem = known.problem(tmp_path, limit=60, seen=seen)
    assert first_plan(problem, start="uniform") == uniform_plan(known.structure, known.projector)
    assert len(seen) == 1
    first_plan(problem, start="sensitivity")
    assert [phase for phase, _ in seen[1:]] == ["curves"] * (len(seen) - 2) + ["search"]
