"""The statistics against known answers, against what they promise, and against the packages rliable and SciPy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from autoprune.statistics import (
    Estimate,
    correlation_estimate,
    hypervolume,
    improvement,
    improvement_estimate,
    iqm,
    iqm_estimate,
    is_constant,
    kendall,
    pareto_front,
    pearson,
    profile,
    profile_band,
    resampled_counts,
    resampled_iqms,
    seeds_needed,
    seeds_suffice,
    spearman,
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


def counts_of(strata: Any, seed: int = 0) -> list[Any]:
    generator = np.random.default_rng(seed)
    return [resampled_counts(len(values), rng=generator) for values in strata]


def test_the_iqm_is_rliables(case: Any) -> None:
    for agent, (value, low, high) in case["iqm"].items():
        found = iqm_estimate(columns(case["scores"][agent]), rng=rng())
        assert found.value == pytest.approx(value, abs=1e-12)
        spread = high - low
        assert [found.low, found.high] == pytest.approx([low, high], abs=0.08 * spread)


def test_the_probability_of_improvement_is_rliables(case: Any) -> None:
    a, b = (columns(case["scores"][agent]) for agent in "ab")
    value, low, high = case["improvement"]
    found = improvement_estimate(a, b, counts=(counts_of(a), counts_of(b, seed=1)))
    assert found.value == pytest.approx(value, abs=1e-12)
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.08 * (high - low))


def test_the_performance_profile_is_rliables(case: Any) -> None:
    thresholds = np.array(RLIABLE["thresholds"])
    for agent, shares in case["profile"].items():
        ours = columns(case["scores"][agent])
        assert profile(ours, thresholds) == pytest.approx(shares, abs=1e-12)
        band = profile_band(ours, thresholds, counts=counts_of(ours))
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


@given(pairs=st.lists(st.tuples(samples, samples), min_size=1, max_size=3))
def test_improvement_is_a_probability_and_turns_around(pairs: Any) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    assert 0 <= improvement(a, b) <= 1
    assert improvement(a, b) + improvement(b, a) == pytest.approx(1)
    assert improvement(a, a) == 0.5
    found = improvement_estimate(a, b, counts=(counts_of(a), counts_of(b)))
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_who_is_always_one_better_is_better_for_sure() -> None:
    b = [np.arange(5.0) / 10, np.arange(6.0) / 10]
    a = [values + 1 for values in b]
    found = improvement_estimate(a, b, counts=(counts_of(a), counts_of(b)))
    assert found == Estimate(1.0, 1.0, 1.0, 0.0)


@given(ours=strata)
def test_a_profile_falls_from_one_to_none(ours: Any) -> None:
    every = np.concatenate(ours)
    shares = profile(ours, np.array([every.min() - 1, *np.sort(every), every.max() + 1]))
    assert shares[0] == 1
    assert shares[-1] == 0
    assert (np.diff(shares) <= 0).all()


@pytest.mark.parametrize(
    ("costs", "qualities", "quality", "area"),
    [
        ([0.5], [0.8], 0, 0.4),
        ([0.5, 0.25], [0.75, 0.5], 0, 0.5),
        ([0.5, 0.6], [0.8, 0.7], 0, 0.4),  # dominated
        ([1.2, 0.5], [0.9, 0.1], 0.3, 0),  # beyond the reference
        ([], [], 0, 0),
    ],
)
def test_hypervolumes_that_are_known(costs: list[float], qualities: list[float], quality: float, area: float) -> None:
    assert hypervolume(costs, qualities, cost=1, quality=quality) == pytest.approx(area)


points = st.lists(st.tuples(st.floats(0, 1.2), st.floats(-0.2, 1)), max_size=6)


@given(front=points, another=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_point_more_never_makes_a_front_smaller(front: Any, another: Any) -> None:
    def area(given_points: Any) -> float:
        costs, qualities = zip(*given_points, strict=True) if given_points else ((), ())
        return hypervolume(costs, qualities, cost=1, quality=0)

    assert area([*front, another]) >= area(front) - 1e-12
    assert 0 <= area(front) <= 1 + 1e-12
    assert area(front[::-1]) == pytest.approx(area(front))


SEEDED = np.array([0.9, 1.0, 1.1, 1.0])


@pytest.mark.parametrize(
    ("a", "b", "enough"),
    [
        (SEEDED[:3], SEEDED[:3] + 5, False),  # apart completely, which 2 of 20 permutations are
        (SEEDED, SEEDED + 5, True),
        (np.ones(1), np.zeros(1), True),  # no seed changes either
        (np.ones(3), np.ones(3), True),
        (SEEDED[:3], np.zeros(3), True),  # by Student's t, t = 17
        (SEEDED[:3], np.full(1, 0.8), False),  # t = 3.5 with two degrees of freedom: p = 0.07
        (SEEDED, np.full(1, 0.8), True),  # four would do against four
        (SEEDED[:1], np.zeros(5), True),  # one value is a constant here; one seed is not ranked in the first place
    ],
)
def test_when_seeds_suffice(a: Any, b: Any, enough: bool) -> None:
    assert seeds_suffice([a], [b]) is seeds_suffice([b], [a]) is enough


def test_constants_hold_in_every_stratum() -> None:
    assert is_constant([np.ones(3), np.zeros(2)])
    assert not is_constant([np.ones(3), SEEDED])
    assert seeds_suffice([SEEDED[:3]] * 2, [SEEDED[:3] + 5] * 2)
    assert [seeds_needed(n) for n in (1, 2, 3, 10)] == [4, 3, 2, 2]


def test_students_t_against_a_constant_is_scipys() -> None:
    """At the level at which SciPy's test changes its mind, so does ours."""
    below = SEEDED[:3].mean() - np.array([0.95, 1.05]) * stats.t.isf(0.025, 2) * SEEDED[:3].std(ddof=1) / np.sqrt(3)
    significant = [stats.ttest_1samp(SEEDED[:3], constant).pvalue <= 0.05 for constant in below]
    assert [seeds_suffice([SEEDED[:3]], [np.full(2, constant)]) for constant in below] == significant == [False, True]


@pytest.mark.parametrize(
    ("difference", "significant", "expected"),
    [
        ((1, 0.9, 1.1), False, "too few seeds"),
        ((1, 0.9, 1.1), True, "better"),
        ((-1, -1.1, -0.9), True, "worse"),
        ((0.1, -0.1, 0.3), True, "no difference"),
        ((0, 0, 1e-12), True, "no difference"),
    ],
)
def test_verdicts(difference: tuple[float, float, float], significant: bool, expected: str) -> None:
    assert verdict(Estimate(*difference, error=0.1), significant=significant) == expected


def test_equal_agents_look_different_in_about_one_of_twenty() -> None:
    """The bootstrap's intervals are somewhat too narrow with ten seeds; no more than that."""
    generator, wrong, tries = np.random.default_rng(5), 0, 300
    for _ in range(tries):
        a, b = generator.normal(size=10), generator.normal(size=10)
        draws = [resampled_iqms([x], rng=generator, resamples=400) for x in (a, b)]
        difference = Estimate.of(float(iqm(a) - iqm(b)), draws[0] - draws[1])
        wrong += verdict(difference, significant=True) != "no difference"
    assert wrong / tries < 0.13


orders = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=12)


def test_tau_of_known_orders() -> None:
    order = np.arange(5.0)
    assert kendall(order, np.exp(order)) == pytest.approx([1])
    assert kendall(order, -order) == pytest.approx([-1])
    assert kendall(order, np.array([1.0, 0, 2, 3, 4])) == pytest.approx([0.8])  # one of ten pairs is swapped


@given(orders)
def test_correlations_are_scipys(pairs: list[tuple[int, int]]) -> None:
    x, y = np.array(pairs, np.float64).T
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan([kendall(x, y)[0], pearson(x, y)[0], spearman(x, y)]).all()
        return
    assert kendall(x, y)[0] == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-9)
    assert pearson(x, y)[0] == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-9)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)


@given(orders, st.integers(0, 99))
def test_a_resample_counts_a_plan_as_often_as_it_is_drawn(pairs: list[tuple[int, int]], seed: int) -> None:
    x, y = np.array(pairs, np.float64).T
    counts = resampled_counts(len(x), rng=np.random.default_rng(seed))[:1]
    rows = np.repeat(np.arange(len(x)), counts[0].astype(int))
    for correlation in (kendall, pearson):
        assert correlation(x, y, counts) == pytest.approx(correlation(x[rows], y[rows]), abs=1e-6, nan_ok=True)


def test_an_interval_of_a_correlation_is_narrower_with_more_plans() -> None:
    draws = rng().normal(0, 1, (2, 200))
    x, y = draws[0], draws[0] + draws[1]
    few, many = (correlation_estimate(kendall, x[:n], y[:n], rng=rng()) for n in (20, 200))
    assert all(estimate.low < estimate.value < estimate.high for estimate in (few, many))
    assert many.high - many.low < few.high - few.low
    assert many.error == pytest.approx((many.high - many.low) / 3.92, rel=0.15)


def test_two_plans_have_no_correlation() -> None:
    assert np.isnan(correlation_estimate(kendall, np.array([1.0, 2]), np.array([1.0, 2]), rng=rng()).value)


def test_known_fronts() -> None:
    assert pareto_front([1, 2, 2, 3], [0.5, 0.6, 0.9, 0.8]).tolist() == [0, 2]
    assert pareto_front([3, 2, 1], [0.9, 0.8, 0.7]).tolist() == [2, 1, 0]  # by ascending cost
    assert pareto_front([1, 1, 1], [0.5, 0.5, 0.4]).tolist() == [0]  # of equal points the first
    assert pareto_front([1, 2], [0.5, 0.5]).tolist() == [0]  # as good and dearer is dominated
    assert pareto_front([], []).tolist() == []


def test_points_that_are_not_known_are_on_no_front() -> None:
    nan = float("nan")
    assert pareto_front([1, nan, 2, 3], [nan, 0.9, 0.5, 0.6]).tolist() == [2, 3]
    assert pareto_front([nan], [nan]).tolist() == []


def test_no_point_of_a_front_is_dominated_and_every_other_is() -> None:
    rng = np.random.default_rng(0)
    for points in (1, 2, 7, 60):
        cost, quality = rng.integers(0, 12, points), rng.integers(0, 12, points)  # ties abound
        front = set(pareto_front(cost, quality).tolist())
        for i in range(points):
            dominated = (
                (cost <= cost[i]) & (quality >= quality[i]) & ((cost < cost[i]) | (quality > quality[i]))
            ).any()
            earlier_equal = ((cost == cost[i]) & (quality == quality[i]))[:i].any()
            assert (i in front) == (not dominated and not earlier_equal)


def test_costs_and_qualities_of_other_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match="alike"):
        pareto_front([1, 2], [1])
