"""What an evaluated plan is worth: how good and how cheap the pruned network is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from autoprune.plan import PruningPlan


@dataclass(frozen=True, slots=True)
class Metrics:
    """How good a network is on one data role.

    accuracy: the task's metric, higher is better. loss: the task's loss. kl: mean KL(dense ‖ network) over samples, in
    nats. agreement: fraction of samples on which its top-1 output is the dense network's. samples: how many it saw.
    """

    accuracy: float
    loss: float
    kl: float
    agreement: float
    samples: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """An evaluated plan. cost: cost name → value in that cost's unit. score: the proxy, higher is better.

    feasible: the plan meets the budget. seconds: what the evaluation took.
    """

    plan: PruningPlan
    metrics: Metrics
    cost: Mapping[str, float]
    score: float
    reward: float
    feasible: bool
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return {
            "kept": list(self.plan.kept),
            **asdict(self.metrics),
            "cost": dict(self.cost),
            "score": self.score,
            "reward": self.reward,
            "feasible": self.feasible,
            "seconds": self.seconds,
        }
