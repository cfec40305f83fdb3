"""What an evaluated plan is worth: how good and how cheap the pruned network is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.plan import PruningPlan


@dataclass(frozen=True, slots=True)
class Metrics:
    """How good a network is on some samples.

    accuracy: the task's metric, higher is better. loss: the task's loss. kl: mean KL(dense ‖ network) over samples, in
    nats. agreement: fraction of samples on which its top-1 output is the dense network's. samples: how many it saw.
    """

    accuracy: float
    loss: float
    kl: float
    agreement: float
    samples: int


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A network judged on consecutive samples, block by block, so that two networks can be compared in pairs.

    values [4, blocks]: accuracy, loss, kl and agreement of each block, float32. samples [blocks]: how many it holds.
    seconds: what judging took.
    """

    values: NDArray[np.float32]
    samples: NDArray[np.int32]
    seconds: float

    @property
    def metrics(self) -> Metrics:
        """Over all samples: the mean of the blocks, weighted by their samples."""
        total = int(self.samples.sum())
        accuracy, loss, kl, agreement = (self.values.astype(np.float64) @ self.samples / total).tolist()
        return Metrics(accuracy, loss, kl, agreement, total)

    @property
    def blocks(self) -> list[Metrics]:
        rows = zip(*self.values.astype(np.float64).tolist(), self.samples.tolist(), strict=True)
        return [Metrics(accuracy, loss, kl, agreement, samples) for accuracy, loss, kl, agreement, samples in rows]


def joined(parts: Sequence[Judged]) -> Judged:
    """The parts as one, in their order."""
    return Judged(
        np.concatenate([part.values for part in parts], axis=1),
        np.concatenate([part.samples for part in parts]),
        math.fsum(part.seconds for part in parts),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """An evaluated plan. cost: cost name → value in that cost's unit. score: the proxy, higher is better.

    metrics are of the samples that were judged. whole: they are all; where a race ended before, score and reward are
    estimates for all (see Objective). feasible: the plan meets the budget. seconds: what judging took, when it was new.
    failed: why the plan could not be judged; its metrics are NaN, and its score and reward the worst that were seen.
    """

    plan: PruningPlan
    metrics: Metrics
    cost: Mapping[str, float]
    score: float
    reward: float
    feasible: bool
    seconds: float
    whole: bool
    failed: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "kept": list(self.plan.kept),
            **asdict(self.metrics),
            "cost": dict(self.cost),
            "score": self.score,
            "reward": self.reward,
            "feasible": self.feasible,
            "seconds": self.seconds,
            **({} if self.failed is None else {"failed": self.failed}),
        }
