"""How well predictions agree with measurements."""

from dataclasses import dataclass

import numpy as np

from autoprune.cost.model import FloatArray


@dataclass(frozen=True, slots=True)
class Agreement:
    """error: mean of |predicted ÷ measured − 1|. largest: its maximum. spearman: rank correlation, in [−1, 1]."""

    error: float
    largest: float
    spearman: float


def agreement(predicted: FloatArray, measured: FloatArray) -> Agreement:
    """Of two plans at least, [plans] each."""
    errors = np.abs(np.asarray(predicted) / np.asarray(measured) - 1)
    ranks = np.corrcoef(_ranks(predicted), _ranks(measured))[0, 1]
    return Agreement(float(errors.mean()), float(errors.max()), float(ranks))


def _ranks(values: FloatArray) -> FloatArray:
    """Equal values share the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[places], np.float64)
