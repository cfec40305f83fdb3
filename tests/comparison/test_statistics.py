"""The statistics against known answers, against what they promise, and against the package rliable."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.comparison.statistics import (
    Estimate,
    estimate,
    hypervolume,
    improvement,
    improvement_estimate,
    iqm,
    iqm_estimate,
    profile,
    profile_band,
    resampled_counts,
    resampled_iqms,
    seeds_needed,
    tells,
    verdict,
)

RLIABLE = json.loads(Path(__file__).with_name("rliable.json").read_text())
numbers = st.floats(-100, 100).map(lambda x: round(x, 3))
samples = st.lists(numbers, min_size=1, max_size=12).map(np.array)
strata = st.lists(samples, min_size=1, max_size=4)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(params=sorted(RLIABLE["cases"]))
def case(request: pytest.FixtureRequest) -> Any:
    return RLIABLE["cases"][request.param]


def columns(scores: Any) -> list[Any]:
    return list(np.array(scores).T)


def test_the_iqm_is_rliables(case: Any) -> None:
    for agent, (value, low, high) in case["iqm"].items():
        found = iqm_estimate(columns(case["scores"][agent]), rng=rng())
        assert found.value == pytest.approx(value, abs=1e-12)
        spread = high - low
        assert [found.low, found.high] == pytest.approx([low, high], abs=0.08 * spread)


def test_the_probability_of_improvement_is_rliables(case: Any) -> None:
    a, b = (columns(case["scores"][agent]) for agent in "ab")
    value, low, high = case["improvement"]
    counts = resampled_counts(a, rng=rng()), resampled_counts(b, rng=np.random.default_rng(1))
    found = improvement_estimate(a, b, counts=counts)
    assert found.value == pytest.approx(value, abs=1e-12)
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.08 * (high - low))


def test_the_performance_profile_is_rliables(case: Any) -> None:
    thresholds = np.array(RLIABLE["thresholds"])
    for agent, shares in case["profile"].items():
        ours = columns(case["scores"][agent])
        assert profile(ours, thresholds) == pytest.approx(shares, abs=1e-12)
        band = profile_band(ours, thresholds, counts=resampled_counts(ours, rng=rng()))
        assert np.array(band) == pytest.approx(np.array(case["band"][agent]), abs=0.07)


def test_the_fixture_has_ties_and_overlaps(case: Any) -> None:
    """Or agreement with it would say little."""
    a, b = (np.array(case["scores"][agent]).ravel() for agent in "ab")
    assert set(a) & set(b)
    assert 0.2 < case["improvement"][0] < 0.9


@pytest.mark.parametrize(
    ("values", "expected"), [([3.0], 3.0), ([1, 2], 1.5), ([0, 1, 2, 9], 1.5), ([0, 0, 1, 2, 3, 4, 50, 90], 2.5)]
)
def test_the_iqm_of_known_values(values: list[float], expected: float) -> None:
    assert float(iqm(values)) == expected


@given(values=samples, shift=numbers, scale=st.floats(0.01, 50))
def test_the_iqm_moves_and_stretches_with_the_values(values: Any, shift: float, scale: float) -> None:
    assert float(iqm(scale * values + shift)) == pytest.approx(scale * float(iqm(values)) + shift, abs=1e-6)
    assert values.min() - 1e-9 <= float(iqm(values)) <= values.max() + 1e-9
    assert float(iqm(values[::-1])) == pytest.approx(float(iqm(values)), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(ours=strata)
def test_an_interval_holds_its_estimate_and_stays_inside_the_values(ours: Any) -> None:
    found = iqm_estimate(ours, rng=rng())
    every = np.concatenate(ours)
    assert every.min() - 1e-9 <= found.low <= found.value <= found.high <= every.max() + 1e-9


def test_resampling_stays_inside_each_stratum() -> None:
    draws = resampled_iqms([np.zeros(4), np.full(4, 8.0)], rng=rng(), resamples=50)
    assert (draws == 4.0).all()  # half of every resample is zero, whatever is drawn


def test_more_seeds_make_narrower_intervals() -> None:
    values = rng().normal(size=400)
    widths = [(found := iqm_estimate([values[:n]], rng=rng())).high - found.low for n in (10, 50, 400)]
    assert widths == sorted(widths, reverse=True)


@settings(max_examples=40, deadline=None)
@given(pairs=st.lists(st.tuples(samples, samples), min_size=1, max_size=3))
def test_improvement_is_a_probability_and_turns_around(pairs: Any) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    assert 0 <= improvement(a, b) <= 1
    assert improvement(a, b) + improvement(b, a) == pytest.approx(1)
    assert improvement(a, a) == 0.5
    found = improvement_estimate(a, b, counts=(resampled_counts(a, rng=rng()), resampled_counts(b, rng=rng())))
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_who_is_always_one_better_is_better_for_sure() -> None:
    b = [np.arange(5.0) / 10, np.arange(6.0) / 10]
    a = [values + 1 for values in b]
    found = improvement_estimate(a, b, counts=(resampled_counts(a, rng=rng()), resampled_counts(b, rng=rng())))
    assert found == Estimate(1.0, 1.0, 1.0)


@given(ours=strata)
def test_a_profile_falls_from_one_to_none(ours: Any) -> None:
    every = np.concatenate(ours)
    shares = profile(ours, np.array([every.min() - 1, *np.sort(every), every.max() + 1]))
    assert shares[0] == 1
    assert shares[-1] == 0
    assert (np.diff(shares) <= 0).all()


def test_hypervolumes_that_are_known() -> None:
    assert hypervolume([0.5], [0.8], cost=1, quality=0) == pytest.approx(0.4)
    assert hypervolume([0.5, 0.25], [0.75, 0.5], cost=1, quality=0) == pytest.approx(0.5)
    assert hypervolume([0.5, 0.6], [0.8, 0.7], cost=1, quality=0) == pytest.approx(0.4)  # dominated
    assert hypervolume([1.2, 0.5], [0.9, 0.1], cost=1, quality=0.3) == 0  # beyond the reference
    assert hypervolume([], [], cost=1, quality=0) == 0


points = st.lists(st.tuples(st.floats(0, 1.2), st.floats(-0.2, 1)), max_size=6)


@given(front=points, another=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_point_more_never_makes_a_front_smaller(front: Any, another: Any) -> None:
    def area(given_points: Any) -> float:
        costs, qualities = zip(*given_points, strict=True) if given_points else ((), ())
        return hypervolume(costs, qualities, cost=1, quality=0)

    assert area([*front, another]) >= area(front) - 1e-12
    assert 0 <= area(front) <= 1 + 1e-12
    assert area(front[::-1]) == pytest.approx(area(front))


def test_too_few_seeds_tell_nothing_however_far_apart() -> None:
    apart = Estimate(1.0, 0.9, 1.1)
    assert verdict(apart, told=tells([(3, 3)])) == "too few seeds"
    assert verdict(apart, told=tells([(4, 4)])) == "better"
    assert verdict(Estimate(-1, -1.1, -0.9), told=True) == "worse"
    assert verdict(Estimate(0.1, -0.1, 0.3), told=True) == "no difference"
    assert verdict(Estimate(0.0, 0.0, 1e-12), told=True) == "no difference"
    assert [seeds_needed(n) for n in (1, 2, 3, 10)] == [4, 3, 2, 2]


def test_equal_agents_look_different_in_about_one_of_twenty() -> None:
    """The bootstrap's intervals are somewhat too narrow with ten seeds; no more than that."""
    generator, wrong, tries = np.random.default_rng(5), 0, 300
    for _ in range(tries):
        a, b = generator.normal(size=10), generator.normal(size=10)
        draws = [resampled_iqms([x], rng=generator, resamples=400) for x in (a, b)]
        found = estimate(float(iqm(a) - iqm(b)), draws[0] - draws[1])
        wrong += verdict(found, told=True) != "no difference"
    assert wrong / tries < 0.13
