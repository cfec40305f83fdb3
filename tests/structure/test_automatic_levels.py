"""Levels that `round_to="auto"` leaves: multiples that processors compute together, and always something to choose."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from autoprune.cost.budget import parse_budget
from autoprune.cost.counted import CostSettings, Countable
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import FEWEST_LEVELS, levels_of
from autoprune.task.task import plain_forward


@pytest.mark.parametrize(("units", "first"), [(512, 8), (40, 8), (32, 8), (24, 4), (16, 4), (10, 2), (6, 1), (2, 1)])
def test_small_groups_go_by_smaller_steps(units: int, first: int) -> None:
    assert levels_of(units, round_to="auto", min_units=1)[0] == first


@given(units=st.integers(2, 600), min_units=st.integers(1, 40), each=st.sampled_from([1, 2, 3, 4, 16]))
def test_automatic_levels_leave_a_choice_and_are_some_of_all(units: int, min_units: int, each: int) -> None:
    levels = levels_of(units, round_to="auto", min_units=min_units, each=each)
    every = levels_of(units, round_to=1, min_units=min_units, each=each)
    assert set(levels) <= set(every)
    assert levels[-1] == units
    assert len(levels) >= min(len(every), 2)
    if min_units == 1:
        assert len(levels) >= min(units, FEWEST_LEVELS)


def test_widths_of_a_network_are_multiples_and_a_budget_below_says_how_to_go_lower() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 48, 3), nn.ReLU(), nn.Conv2d(48, 20, 3), nn.ReLU(), nn.Flatten(), nn.Linear(320, 9),
        nn.ReLU(), nn.Linear(9, 4),
    )  # fmt: skip
    example = torch.randn(1, 3, 8, 8)
    structure = find_structure(model, example, round_to="auto")
    assert {group.name: group.levels[:2] for group in structure.groups} == {"0": (8, 16), "2": (4, 8), "5": (2, 4)}
    costs = Countable(model, structure, example, settings=CostSettings(), forward=plain_forward)
    with pytest.raises(ValueError, match=r"structure\.round_to=1"):
        parse_budget("macs:0.01", costs, structure)
    every = find_structure(model, example)
    parse_budget("macs:0.01", Countable(model, every, example, settings=CostSettings(), forward=plain_forward), every)
