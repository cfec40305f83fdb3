"""A machine whose timings are known: runs of known length, and a clock that can be disturbed."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from autoprune.device.timing import Run, TimingPolicy

CARE = TimingPolicy(rounds=4, burst=2, tolerance=0.05, most=12, unstable=0.02, drift=0.08, patience_s=0.2, chunk=64)
CARELESS = TimingPolicy(rounds=2, burst=1, tolerance=9.0, most=2, unstable=1.0, drift=1e9, patience_s=60, chunk=64)


@dataclass
class Machine:
    """Its clock says what a run takes, times what `disturbance` makes of it."""

    disturbance: Callable[[], float] = lambda: 1.0
    readings: int = 0
    taken: dict[Run, float] = field(default_factory=dict)

    def run(self, seconds: float) -> Run:
        def run() -> object:
            return None

        self.taken[run] = seconds
        return run

    def clock(self, run: Run) -> float:
        self.readings += 1
        return self.taken[run] * self.disturbance()


def noise(seed: int, *, share: float, times: float = 3.0) -> Callable[[], float]:
    """A share of all readings take up to so many times longer."""
    rng = np.random.default_rng(seed)
    return lambda: 1 + (times - 1) * rng.random() if rng.random() < share else 1.0
