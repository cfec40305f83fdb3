"""Known answers: noise that was put in, tables that add up."""

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
    noise_verdict,
    pooled_deviation,
    seed_noise,
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_better_half() -> None:
    assert better_half(np.array([0.1, 0.9, 0.5, 0.8, 0.2])).tolist() == [False, True, True, True, False]
    assert better_half(np.array([1.0, 1.0, 1.0, 1.0])).sum() == 2


def test_seed_noise_is_pooled_over_plans_of_any_number_of_seeds() -> None:
    assert pooled_deviation([[1.0, 3.0], [5.0, 7.0], [100.0]]) == pytest.approx(np.sqrt(2))
    assert np.isnan(pooled_deviation([[1.0], [2.0]]))
    draws = rng().normal(0, 0.3, (400, 4)) + rng().normal(0, 9, (400, 1))
    assert pooled_deviation(draws.tolist()) == pytest.approx(0.3, rel=0.05)


def test_plans_that_differ_are_told_from_plans_that_do_not() -> None:
    noise = rng().normal(0, 0.01, (40, 4))
    apart = seed_noise((noise + rng().normal(0, 0.1, (40, 1))).tolist(), rng=rng())
    equal = seed_noise(noise.tolist(), rng=rng())
    assert apart.differ
    assert apart.reliability > 0.95
    assert 0.9 < apart.tau < 1
    assert not equal.differ
    assert equal.reliability < 0.4
    assert equal.tau < 0.5
    assert "the plans differ" in noise_verdict(apart)
    assert "nothing can rank these plans" in noise_verdict(equal)


def test_equal_plans_are_called_different_as_seldom_as_promised() -> None:
    draws = np.random.default_rng(1).normal(0, 1, (200, 20, 3))
    assert np.mean([seed_noise(values.tolist(), rng=rng()).differ for values in draws]) == pytest.approx(0.05, abs=0.04)


def test_reliability_is_one_less_the_noises_share() -> None:
    found = seed_noise([[0.0, 2.0], [4.0, 6.0], [8.0, 10.0]], rng=rng())
    assert found.noise == pytest.approx(np.sqrt(2))
    assert found.spread == pytest.approx(4)
    assert found.reliability == pytest.approx(1 - 1 / 16)  # the mean of two seeds has half the variance
    assert found.pearson == pytest.approx(np.sqrt(15 / 16))


def test_the_test_of_equal_plans_is_anovas() -> None:
    values = (rng().normal(0, 1, (12, 3)) + rng().normal(0, 0.7, (12, 1))).tolist()
    assert seed_noise(values, rng=rng()).p == pytest.approx(stats.f_oneway(*values).pvalue)


def test_without_noise_everything_can_be_ranked() -> None:
    found = seed_noise([[1.0, 1.0], [2.0], [3.0]], rng=rng())
    assert (found.noise, found.reliability, found.tau, found.p) == (0, 1, 1, 0)
    assert "whatever the seed" in noise_verdict(found)


def test_what_cannot_be_known_is_said() -> None:
    assert "no plan was recovered from two seeds" in noise_verdict(seed_noise([[1.0], [2.0], [3.0]], rng=rng()))
    assert "nothing can be said yet" in noise_verdict(seed_noise([[1.0, 2.0]], rng=rng()))
    same = seed_noise([[1.0, 1.0], [1.0], [1.0]], rng=rng())
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
        noise_verdict(found)
        == "nothing can rank these plans: they differ by 0.19 points, another seed alone does 0.20 (p = 0.60)"
    )
