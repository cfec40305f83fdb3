"""Who is recommended: the best, among equals the cheapest, then the default; nobody where nothing can rank."""

from dataclasses import replace

import numpy as np
import pytest

from autoprune.fidelity.rank_agreement import SeedNoise
from autoprune.fidelity.recommendation import BAR, Choice, recommend

DIFFER = SeedNoise(noise=0.01, spread=0.1, reliability=0.99, p=0.0, tau=0.95, pearson=0.99)
TRUTH = np.random.default_rng(0).normal(0, 1, 40)
NOISE = np.random.default_rng(1).normal(0, 1, 40)
DEFAULT: Choice = ("batch_norm", "kl")
SECONDS = {"batch_norm": 0.3, "none": 0.2, "least_squares": 0.9}


def proxies(**changes: float) -> dict[Choice, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Truth with so much noise, per repair."""
    noise = {"batch_norm": 3.0, "none": 30.0, "least_squares": 30.0} | changes
    return {(repair, "kl"): TRUTH + amount * NOISE for repair, amount in noise.items()}


def test_the_best_by_far_is_recommended_whatever_it_costs() -> None:
    found = recommend(proxies(least_squares=0.1), TRUTH, seconds=SECONDS, noise=DIFFER, default=DEFAULT)
    assert (found.repair, found.rule) == ("least_squares", "best")
    assert found.tied == (("least_squares", "kl"),)
    assert found.tau.value > BAR
    assert found.reaches


def test_among_equals_the_cheapest() -> None:
    equal = proxies(batch_norm=0.2, none=0.2001, least_squares=0.1999)
    found = recommend(equal, TRUTH, seconds=SECONDS, noise=DIFFER, default=DEFAULT)
    assert found.repair == "none"
    assert set(found.tied) == set(equal)


def test_at_equal_cost_the_default() -> None:
    equal = {**proxies(batch_norm=0.2), ("batch_norm", "accuracy"): TRUTH + 0.18 * np.roll(NOISE, 7)}
    found = recommend(equal, TRUTH, seconds={**SECONDS, "none": 0.29}, noise=DIFFER, default=DEFAULT)
    assert ((found.repair, found.score), found.rule) == (DEFAULT, "default")


def test_where_nothing_can_rank_the_default_stays() -> None:
    chance = replace(DIFFER, p=0.4)
    found = recommend(proxies(least_squares=0.1), TRUTH, seconds=SECONDS, noise=chance, default=DEFAULT)
    assert ((found.repair, found.score), found.rule, found.reaches) == (DEFAULT, "kept", None)


def test_a_constant_proxy_is_never_recommended() -> None:
    some = {**proxies(batch_norm=0.2), ("none", "accuracy"): np.zeros(40)}
    found = recommend(some, TRUTH, seconds=SECONDS, noise=DIFFER, default=("none", "accuracy"))
    assert found.repair == "batch_norm"


def test_a_weak_best_does_not_reach_the_bar() -> None:
    found = recommend(proxies(), TRUTH, seconds=SECONDS, noise=DIFFER, default=DEFAULT)
    assert found.tau.value < BAR
    assert found.reaches is False


def test_the_same_measurements_give_the_same_recommendation() -> None:
    first, second = (recommend(proxies(), TRUTH, seconds=SECONDS, noise=DIFFER, default=DEFAULT) for _ in range(2))
    assert first == second
    assert first.tau.value == pytest.approx(second.tau.value)
