"""Wishes that become plans without regard to the budget."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.cost.allocation import allocator_of
from autoprune.cost.projection import Projector, Rounding
from autoprune.structure.groups import Structure
from tests.search.toys import additive, depth, structures, weights

Parts = tuple[Structure, Projector]


def rounding_of(parts: Parts) -> Rounding:
    return Rounding(parts[0], parts[1].budget)


@given(structures(), st.integers(0, 999))
def test_every_group_gets_the_level_nearest_to_its_wish(parts: Parts, seed: int) -> None:
    rounding, (structure, _) = rounding_of(parts), parts
    density = np.random.default_rng(seed).uniform(0, 1.3, (2, 3, len(structure.groups)))
    kept = rounding.project(density)
    assert kept.shape == density.shape
    wish = np.minimum(density, 1) * structure.units
    for at, group in enumerate(structure.groups):
        distance = np.abs(np.array(group.levels) - wish[..., at, None])
        assert np.isin(kept[..., at], group.levels).all()
        assert np.abs(kept[..., at] - wish[..., at]) == pytest.approx(distance.min(axis=-1))


@given(structures(), st.integers(0, 999))
def test_what_was_wished_for_is_what_is_kept_whatever_it_costs(parts: Parts, seed: int) -> None:
    rounding, (structure, _) = rounding_of(parts), parts
    rng = np.random.default_rng(seed)
    plans = [structure.units, structure.floor, np.array([rng.choice(group.levels) for group in structure.groups])]
    for kept in plans:
        assert np.array_equal(rounding.project(kept / structure.units), kept)


@given(structures(), st.integers(0, 999))
def test_group_by_group_is_the_same_as_at_once(parts: Parts, seed: int) -> None:
    rounding, (structure, _) = rounding_of(parts), parts
    density = np.random.default_rng(seed).uniform(0, 1, (4, len(structure.groups)))
    at_once = rounding.project(density)
    allocator = allocator_of(rounding, episodes=4)
    for group, units in enumerate(structure.units):
        assert allocator.interval[:, 0].tolist() == [structure.floor[group], units]
        allocator.decide(density[:, group] * units)
    assert np.array_equal(allocator.kept, at_once)


def test_of_two_levels_equally_near_the_lower_one_is_kept() -> None:
    structure, projector = additive(weights("a", units=4, levels=(2, 4)), depth("b"), prices=[1, 1], limit=4)
    rounding = Rounding(structure, projector.budget)
    assert rounding.project(np.array([0.75, 0.5])).tolist() == [2, 0]
    assert rounding.project(np.array([0.76, 0.51])).tolist() == [4, 1]
    assert not rounding.budget.meets(rounding.project(np.ones(2)))
