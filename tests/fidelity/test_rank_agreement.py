"""Known answers: orders whose correlation is known, noise that was put in, tables that add up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from autoprune.fidelity.rank_agreement import (
    SeedNoise,
    additivity,
    better_half,
    ceiling,
    chance,
    estimate,
    kendall,
    pearson,
    resamples,
    seed_noise,
    spearman,
    verdict,
)

ONCE = np.ones((1, 5))
lists = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=12)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_tau_of_known_orders() -> None:
    order = np.arange(5.0)
    assert kendall(order, np.exp(order), ONCE) == pytest.approx([1])
    assert kendall(order, -order, ONCE) == pytest.approx([-1])
    assert kendall(order, np.array([1.0, 0, 2, 3, 4]), ONCE) == pytest.approx([0.8])  # one of ten pairs is swapped
    assert np.isnan(kendall(order, np.zeros(5), ONCE)).all()


@given(lists)
def test_correlations_are_scipys(pairs: list[tuple[int, int]]) -> None:
    x, y = np.array(pairs, np.float64).T
    once = np.ones((1, len(x)))
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan(kendall(x, y, once)).all()
        assert np.isnan(pearson(x, y, once)).all()
        return
    assert kendall(x, y, once)[0] == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-9)
    assert pearson(x, y, once)[0] == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-9)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)


@given(lists, st.integers(0, 99))
def test_a_resample_counts_a_plan_as_often_as_it_is_drawn(pairs: list[tuple[int, int]], seed: int) -> None:
    x, y = np.array(pairs, np.float64).T
    weights = resamples(len(x), rng=np.random.default_rng(seed))[:1]
    rows = np.repeat(np.arange(len(x)), weights[0].astype(int))
    once = np.ones((1, len(rows)))
    for statistic in (kendall, pearson):
        expected = statistic(x[rows], y[rows], once)
        assert statistic(x, y, weights) == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_an_interval_holds_its_value_and_is_narrower_with_more_plans() -> None:
    draws = rng().normal(0, 1, (2, 200))
    x, y = draws[0], draws[0] + draws[1]
    few, many = (estimate(kendall, x[:n], y[:n], rng=rng()) for n in (20, 200))
    for found in (few, many):
        assert found.low < found.value < found.high
    assert many.high - many.low < few.high - few.low
    assert many.error == pytest.approx((many.high - many.low) / 3.92, rel=0.15)


def test_two_plans_have_no_correlation() -> None:
    assert np.isnan(estimate(kendall, np.array([1.0, 2]), np.array([1.0, 2]), rng=rng()).value)


def test_the_better_half() -> None:
    assert better_half(np.array([0.1, 0.9, 0.5, 0.8, 0.2])).tolist() == [False, True, True, True, False]
    assert better_half(np.array([1.0, 1.0, 1.0, 1.0])).sum() == 2


def test_seed_noise_is_pooled_over_plans_of_any_number_of_seeds() -> None:
    assert seed_noise([[1.0, 3.0], [5.0, 7.0], [100.0]]) == pytest.approx(np.sqrt(2))
    assert np.isnan(seed_noise([[1.0], [2.0]]))
    draws = rng().normal(0, 0.3, (400, 4)) + rng().normal(0, 9, (400, 1))
    assert seed_noise(draws.tolist()) == pytest.approx(0.3, rel=0.05)


def test_plans_that_differ_are_told_from_plans_that_do_not() -> None:
    noise = rng().normal(0, 0.01, (40, 4))
    apart = chance((noise + rng().normal(0, 0.1, (40, 1))).tolist(), rng=rng())
    equal = chance(noise.tolist(), rng=rng())
    assert apart.differ
    assert apart.reliability > 0.95
    assert 0.9 < apart.tau < 1
    assert not equal.differ
    assert equal.reliability < 0.4
    assert equal.tau < 0.5
    assert "the plans differ" in verdict(apart)
    assert "nothing can rank these plans" in verdict(equal)


def test_equal_plans_are_called_different_as_seldom_as_promised() -> None:
    draws = np.random.default_rng(1).normal(0, 1, (200, 20, 3))
    assert np.mean([chance(values.tolist(), rng=rng()).differ for values in draws]) == pytest.approx(0.05, abs=0.04)


def test_reliability_is_one_less_the_noises_share() -> None:
    found = chance([[0.0, 2.0], [4.0, 6.0], [8.0, 10.0]], rng=rng())
    assert found.noise == pytest.approx(np.sqrt(2))
    assert found.spread == pytest.approx(4)
    assert found.reliability == pytest.approx(1 - 1 / 16)  # the mean of two seeds has half the variance
    assert found.pearson == pytest.approx(np.sqrt(15 / 16))


def test_without_noise_everything_can_be_ranked() -> None:
    found = chance([[1.0, 1.0], [2.0], [3.0]], rng=rng())
    assert (found.noise, found.reliability, found.tau, found.p) == (0, 1, 1, 0)
    assert "whatever the seed" in verdict(found)


def test_what_cannot_be_known_is_said() -> None:
    assert "no plan was recovered from two seeds" in verdict(chance([[1.0], [2.0], [3.0]], rng=rng()))
    assert "nothing can be said yet" in verdict(chance([[1.0, 2.0]], rng=rng()))
    same = chance([[1.0, 1.0], [1.0], [1.0]], rng=rng())
    assert not same.differ
    assert same.reliability == 0


@given(st.floats(0.01, 10))
def test_a_perfect_proxy_gets_worse_with_noise(scale: float) -> None:
    exact = np.arange(12.0) * scale
    taus = [ceiling(exact, np.full(12, noise * scale), rng=rng()) for noise in (0, 0.5, 2, 50)]
    assert taus == sorted(taus, reverse=True)
    assert taus[0] == 1
    assert abs(taus[-1]) < 0.15


def test_a_table_that_adds_up_is_additive() -> None:
    alone = rng().uniform(0, 1, (30, 6))
    exact = additivity(alone, alone.sum(axis=1))
    assert (exact.r2, exact.ratio, exact.tau) == (pytest.approx(1), pytest.approx(1), pytest.approx(1))
    doubled = additivity(alone, 2 * alone.sum(axis=1))
    assert (doubled.r2, doubled.ratio) == (pytest.approx(1), pytest.approx(2))
    assert additivity(alone, rng().uniform(0, 1, 30)[::-1]).r2 < 0.5


def test_a_verdict_never_contradicts_its_test() -> None:
    found = SeedNoise(noise=0.002, spread=0.0019, reliability=0, p=0.6, tau=0.1, pearson=0)
    assert (
        verdict(found)
        == "nothing can rank these plans: they differ by 0.19 points, another seed alone does 0.20 (p = 0.60)"
    )
