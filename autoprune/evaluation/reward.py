"""Rewards: pure functions of how good a plan is and what it costs.

Each takes the metrics, the score chosen from them, the cost as a fraction of the dense network's and the budget as a
fraction of it.
"""

import math
from collections.abc import Callable

from autoprune.evaluation.outcome import Metrics
from autoprune.ranges import NonNegative

Reward = Callable[[Metrics, float, float, float], float]


def under_budget(metrics: Metrics, score: float, cost: float, budget: float) -> float:
    """The score alone: the budget is kept by the projection, not by the reward.

    Args:
        metrics: What was measured on the samples.
        score: Of the pruned network.
        cost: The plan's cost, as a share of the dense network's.
        budget: The share of the dense cost that may be used, in (0, 1].
    """
    return score


def amc(metrics: Metrics, score: float, cost: float, budget: float) -> float:
    """−error · log(cost) without a budget's pull (AMC, arXiv 1802.03494), the cost in percent of dense.

    Args:
        metrics: What was measured on the samples.
        score: Of the pruned network.
        cost: The plan's cost, as a share of the dense network's.
        budget: The share of the dense cost that may be used, in (0, 1].
    """
    return -(1 - metrics.accuracy) * math.log(1 + 100 * cost)


def trade_off(metrics: Metrics, score: float, cost: float, budget: float, *, weight: NonNegative) -> float:
    """The score plus weight × the fraction of the cost that was removed.

    Args:
        metrics: What was measured on the samples.
        score: Of the pruned network.
        cost: The plan's cost, as a share of the dense network's.
        budget: The share of the dense cost that may be used, in (0, 1].
        weight: Of the cost.
    """
    return score + weight * (1 - cost)
