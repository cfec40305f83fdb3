import numpy as np
import pytest

from autoprune.report.pareto import pareto_front


def test_known_answers() -> None:
    assert pareto_front([1, 2, 2, 3], [0.5, 0.6, 0.9, 0.8]).tolist() == [0, 2]
    assert pareto_front([3, 2, 1], [0.9, 0.8, 0.7]).tolist() == [2, 1, 0]  # by ascending cost
    assert pareto_front([1, 1, 1], [0.5, 0.5, 0.4]).tolist() == [0]  # of equal points the first
    assert pareto_front([1, 2], [0.5, 0.5]).tolist() == [0]  # as good and dearer is dominated
    assert pareto_front([], []).tolist() == []


def test_what_is_not_known_is_no_part_of_it() -> None:
    nan = float("nan")
    assert pareto_front([1, nan, 2, 3], [nan, 0.9, 0.5, 0.6]).tolist() == [2, 3]
    assert pareto_front([nan], [nan]).tolist() == []


def test_no_point_of_it_is_dominated_and_every_other_is() -> None:
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


def test_lengths_that_differ_are_an_error() -> None:
    with pytest.raises(ValueError, match="alike"):
        pareto_front([1, 2], [1])
