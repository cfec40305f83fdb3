import math

import pytest

from autoprune.evaluation import reward
from autoprune.evaluation.outcome import Metrics

METRICS = Metrics(accuracy=0.9, loss=0.4, kl=0.1, agreement=0.95, samples=100)


def test_known_values() -> None:
    assert reward.under_budget(METRICS, -0.1, 0.5, 0.5) == -0.1
    assert reward.amc(METRICS, -0.1, 0.5, 0.5) == pytest.approx(-0.1 * math.log(51))
    assert reward.trade_off(METRICS, -0.1, 0.25, 0.5, weight=0.4) == pytest.approx(0.2)


def test_amc_rewards_accuracy_and_cheapness() -> None:
    better = Metrics(accuracy=0.95, loss=0.4, kl=0.1, agreement=0.95, samples=100)
    assert reward.amc(better, 0, 0.5, 0.5) > reward.amc(METRICS, 0, 0.5, 0.5) > reward.amc(METRICS, 0, 0.9, 0.5)
