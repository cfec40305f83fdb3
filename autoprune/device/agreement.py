"""How well predictions agree with measurements."""

from dataclasses import dataclass

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.statistics import spearman


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of predictions with measurements of the same plans."""

    error: float
    """The mean of |predicted ÷ measured − 1|."""
    largest: float
    """The largest of these."""
    spearman: float
    """The rank correlation, in [−1, 1]."""


def agreement(predicted: FloatArray, measured: FloatArray) -> Agreement:
    """How two arrays [plans] of at least two plans agree.

    Args:
        predicted: What was predicted [plans].
        measured: What was measured, in the same order.
    """
    errors = np.abs(np.asarray(predicted) / np.asarray(measured) - 1)
    return Agreement(float(errors.mean()), float(errors.max()), spearman(predicted, measured))
