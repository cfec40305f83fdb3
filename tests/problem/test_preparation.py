from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.problem.preparation import evenly_spaced
from autoprune.structure.groups import Group, Structure, levels_of
from tests.tasks import prepared, tiny_task


@given(units=st.integers(2, 300), round_to=st.integers(1, 16), count=st.integers(2, 12))
def test_levels_are_some_of_the_groups_own_and_evenly_spaced(units: int, round_to: int, count: int) -> None:
    allowed = levels_of(units, round_to=round_to, min_units=1)
    structure = Structure((Group("conv", "channel", units, (), allowed),), ())
    levels = evenly_spaced(structure, count).groups[0].levels
    assert set(levels) <= set(allowed)
    assert list(levels) == sorted(set(levels))
    assert levels[-1] == units
    if len(allowed) <= count:
        assert levels == allowed
    elif round_to == 1:
        assert np.abs(np.array(levels) - units * np.arange(1, count + 1) / count).max() <= 0.5


def test_a_task_says_how_many_levels_its_groups_have() -> None:
    ready = prepared(tiny_task("plain", levels=3))
    assert [len(group.levels) for group in ready.structure.groups] == [3, 3]
    kept = ready.projector.project(np.array([0.4, 0.9]))
    assert all(k in group.levels for k, group in zip(kept.tolist(), ready.structure.groups, strict=True))
    assert ready.candidates.structure is ready.structure
    with pytest.raises(ValueError, match=r"task.levels must be at least 2, .* got 1"):
        prepared(replace(tiny_task("plain"), levels=1))
