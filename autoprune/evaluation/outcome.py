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
    """How good a network is on some samples. What has no meaning without targets is NaN without them."""

    accuracy: float
    """The task's metric, higher is better; NaN where it needs more samples than these."""
    loss: float
    """The task's loss."""
    kl: float
    """Mean divergence from the dense network's outputs, at least 0: KL in nats, or an error relative to their variance
    (`task.outputs.OutputKind`)."""
    agreement: float
    """Mean agreement with the dense network, in [0, 1]: of samples with the same top-1 output, or alike."""
    samples: int
    """How many samples it saw."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A network judged on consecutive samples, block by block, so that two networks can be compared in pairs."""

    values: NDArray[np.float32]
    """[4, blocks]: accuracy, loss, kl and agreement of each block."""
    samples: NDArray[np.int32]
    """[blocks]: how many each holds."""
    seconds: float
    """What judging took."""

    @property
    def metrics(self) -> Metrics:
        """Over all samples: the mean of the blocks, weighted by their samples.

        A metric that is no mean over samples stands in the last blocks, NaN in those before (see `Judge`).
        """
        total = int(self.samples.sum())
        accuracy, loss, kl, agreement = (self.values.astype(np.float64) @ self.samples / total).tolist()
        if math.isnan(accuracy):
            accuracy = float(self.values[0, -1])
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
    """What one plan is worth."""

    plan: PruningPlan
    """The plan."""
    metrics: Metrics
    """Of the samples that were judged; NaN where the plan could not be judged."""
    cost: Mapping[str, float]
    """Cost name → the plan's, in that cost's unit."""
    score: float
    """Of the pruned network, higher is better: what `score=` makes of the metrics."""
    reward: float
    """What the search maximises; where a race ended before all samples, reward and score are estimates for all (see
    Objective)."""
    feasible: bool
    """The plan meets the budget."""
    seconds: float
    """What judging took, when it was new."""
    whole: bool
    """The plan was judged on all samples."""
    failed: str | None = None
    """Why the plan could not be judged; score and reward are the worst that were seen then. None where it was."""

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
