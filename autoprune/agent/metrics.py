"""The agent's own numbers (losses, entropy, exploration), from Stable-Baselines3's logger to whoever tracks the run."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.logger import KVWriter, Logger

OnMetrics = Callable[[Mapping[str, float], int], None]  # ({"train/actor_loss": …}, agent steps so far)

FORWARDED = ("train/", "rollout/")  # the rest is Stable-Baselines3's own clock


class MetricsWriter(KVWriter):
    """Forwards the numbers that Stable-Baselines3 logs under `train/` and `rollout/`, as plain floats."""

    def __init__(self, on_metrics: OnMetrics) -> None:
        self._on_metrics = on_metrics

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        numbers = {
            key: float(value)
            for key, value in key_values.items()
            if key.startswith(FORWARDED) and isinstance(value, int | float | np.number)
        }
        if numbers:
            self._on_metrics(numbers, step)

    def close(self) -> None:
        """Nothing is held open."""


def logger(on_metrics: OnMetrics) -> Logger:
    """A Stable-Baselines3 logger that writes nowhere else: no folder, no terminal, no TensorBoard."""
    return Logger(folder=None, output_formats=[MetricsWriter(on_metrics)])
