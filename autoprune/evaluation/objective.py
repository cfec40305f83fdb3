"""The objective: plan → outcome. Everything that searches calls this and nothing else."""

import time
from collections.abc import Mapping, Sequence

import torch

from autoprune.cost.budget import Budget
from autoprune.cost.model import CostModel
from autoprune.evaluation.judge import Judge, Score
from autoprune.evaluation.ordered import OrderedNetwork
from autoprune.evaluation.outcome import Outcome
from autoprune.evaluation.repair import Repair
from autoprune.evaluation.reward import Reward
from autoprune.plan import PruningPlan
from autoprune.structure.edit import Ranking
from autoprune.structure.groups import Structure
from autoprune.task.task import Role, Task
from autoprune.task.training import supports_bf16

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Objective:
    """Says how good and how cheap the pruned network is, for any plan, from the search role's proxy samples.

    The units were ranked once; a plan is a set of leading slices of the ordered network, repaired in its own forward
    pass and judged against cached dense outputs. A plan is never computed twice.
    """

    def __init__(
        self,
        task: Task,
        *,
        structure: Structure,
        ranking: Ranking,
        costs: Mapping[str, CostModel],
        budget: Budget,
        repair: Repair,
        score: Score,
        reward: Reward,
        proxy: Role,
        batch_size: int,
        precision: str,
    ) -> None:
        dtype = _dtype(precision, task.device)
        self.structure, self.costs, self.budget = structure, costs, budget
        self._score, self._reward = score, reward
        self._judge = Judge(task, proxy, batch_size=batch_size, dtype=dtype)
        self._ordered = OrderedNetwork(task.model, structure, ranking, dtype=dtype, prepare=repair.prepare)
        self._known: dict[PruningPlan, Outcome] = {}

    def evaluate(self, plans: Sequence[PruningPlan]) -> list[Outcome]:
        """The outcomes of the plans, in their order; equal plans are computed once."""
        for plan in dict.fromkeys(plans):
            if plan not in self._known:
                self._known[plan] = self._compute(plan)
        return [self._known[plan] for plan in plans]

    def _compute(self, plan: PruningPlan) -> Outcome:
        start = time.perf_counter()
        try:
            metrics = self._judge(self._ordered.at(plan))
        except FloatingPointError as error:
            raise FloatingPointError(
                f"the network pruned by {plan.as_json()} cannot be judged: {error}; try evaluation.precision=fp32"
            ) from error
        kept = [plan.kept]
        cost = {name: float(model(kept)[0]) for name, model in self.costs.items()}  # type: ignore[arg-type]
        spent = float(self.budget.cost(kept)[0])  # type: ignore[arg-type]
        score = self._score(metrics)
        return Outcome(
            plan=plan,
            metrics=metrics,
            cost=cost,
            score=score,
            reward=self._reward(metrics, score, spent / self.budget.dense, self.budget.relative),
            feasible=spent <= self.budget.limit,
            seconds=time.perf_counter() - start,
        )


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    """auto: bfloat16 where the device computes in it; it ranks plans as float32 does, in half the time."""
    if precision == "auto":
        return torch.bfloat16 if supports_bf16(device) else torch.float32
    if precision not in PRECISIONS:
        raise ValueError(f"evaluation.precision must be one of {['auto', *PRECISIONS]}, got {precision!r}")
    return PRECISIONS[precision]
