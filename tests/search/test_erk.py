"""The published rule, layer by layer, on the budget."""

from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng

from autoprune.cost.projection import Projector
from autoprune.search import erk
from autoprune.search.erk import erk_densities
from autoprune.structure.groups import Comparison, Group, Layer, Member, Structure
from tests.search.toys import additive, depth, toy, weights


def conv(name: str, outputs: int, inputs: int, *, kernel: int = 9, depthwise: bool = False) -> Layer:
    return Layer(name, "conv", outputs, inputs, kernel, 1, 1, False, depthwise)


def linear(name: str, outputs: int, inputs: int) -> Layer:
    return Layer(name, "linear", outputs, inputs, 1, 1, 1, False, False)


def matrix(name: str, inputs: int) -> Group:
    return Group(name, "weight", inputs, (), tuple(range(1, inputs + 1)), compared=(Comparison(name, inputs),))


def channels(name: str, units: int, *, made_by: list[str], read_by: list[str]) -> Group:
    one = np.arange(units)[:, None]
    members = [Member(layer, "out", one, 1) for layer in made_by] + [Member(layer, "in", one, 1) for layer in read_by]
    return Group(name, "channel", units, tuple(members), tuple(range(1, units + 1)))


def test_densities_are_the_rules() -> None:
    layers = (conv("c", 16, 3), linear("f", 10, 64), linear("g", 10, 64))
    structure = Structure((matrix("f", 64), channels("c", 16, made_by=["c"], read_by=["f"])), layers)
    assert erk_densities(structure).tolist() == pytest.approx([74 / 640, (16 + 3 + 3 + 3) / (16 * 3 * 9)])


def test_layers_that_lose_the_same_units_are_taken_together() -> None:
    layers = (conv("a", 8, 4), conv("d", 8, 1, depthwise=True), conv("b", 8, 16, kernel=1))
    structure = Structure((channels("g", 8, made_by=["a", "d", "b"], read_by=[]),), layers)
    assert erk_densities(structure).tolist() == pytest.approx([(8 + 4 + 6 + 8 + 16 + 2) / (8 * 4 * 9 + 8 * 16)])


def test_they_are_scaled_to_the_budget(tmp_path: Path) -> None:
    found, projector = additive(matrix("small", 20), matrix("large", 200), prices=[30, 300], limit=4_000)
    structure = Structure(found.groups, (linear("small", 30, 20), linear("large", 300, 200)))
    problem = toy(structure, projector, tmp_path, loss=sum, limit=3)
    plan = erk.search(problem, rng=default_rng(0))
    small, large = np.array(plan.kept) / structure.units
    rule = erk_densities(structure)
    assert problem.objective.spent == 1
    assert small / large == pytest.approx(rule[0] / rule[1], rel=0.1)  # one unit of the small one is left over


def test_equal_blocks_go_evenly_spaced(tmp_path: Path) -> None:
    found, projector = additive(*(depth(f"b{i}") for i in range(12)), prices=[5] * 12, limit=5 * 9)
    structure = Structure(found.groups, tuple(linear(f"b{i}.f", 8, 8) for i in range(12)))
    plan = erk.search(
        toy(structure, Projector(structure, projector.budget), tmp_path, loss=sum, limit=1), rng=default_rng(0)
    )
    assert set(np.flatnonzero(np.array(plan.kept) == 0).tolist()) == {3, 6, 9}


def test_groups_without_layers_are_refused(tmp_path: Path) -> None:
    parts = additive(weights("w", units=4), prices=[1], limit=2)
    with pytest.raises(ValueError, match="shapes of layers, and group 'w' has none; try another search"):
        erk.search(toy(*parts, tmp_path, loss=sum, limit=1), rng=default_rng(0))
