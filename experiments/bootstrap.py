"""The mean of few values, with what resampling them says of it."""

from collections.abc import Sequence

import numpy as np

DRAWS = 4_000


def bootstrapped_mean(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the mean, and the lower and upper ends of its 95 % percentile-bootstrap interval."""
    drawn = np.random.default_rng(0).choice(values, (DRAWS, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.mean(values)), float(low), float(high)
