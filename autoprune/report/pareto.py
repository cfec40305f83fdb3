"""The plans that no other plan beats in both cost and quality."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pareto_front(cost: ArrayLike, quality: ArrayLike) -> NDArray[np.int64]:
    """Indices of the points that no other is at most as costly and better, or cheaper and as good; by ascending cost.

    cost, quality: [points]. Points where either is NaN are no part of it; of equal points the first is.

    >>> pareto_front([1, 2, 2, 3], [0.5, 0.6, 0.9, 0.8]).tolist()
    [0, 2]
    """
    costs, qualities = np.asarray(cost, np.float64), np.asarray(quality, np.float64)
    if costs.ndim != 1 or costs.shape != qualities.shape:
        raise ValueError(f"cost and quality must be [points] alike, got shapes {costs.shape} and {qualities.shape}")
    known = np.flatnonzero(~(np.isnan(costs) | np.isnan(qualities)))
    order = known[np.lexsort((known, -qualities[known], costs[known]))]  # the best of each cost comes first
    best_before = np.maximum.accumulate(np.concatenate([[-np.inf], qualities[order]]))[:-1]
    return np.asarray(order[qualities[order] > best_before], np.int64)
