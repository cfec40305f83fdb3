"""What a policy that learned on other networks gives a model-based search: plans to begin with, and critics."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from autoprune.agent.critic_search import critic_values
from autoprune.agent.trained_policy import TrainedPolicy
from autoprune.cost.model import FloatArray
from autoprune.env.transfer_task import TransferTask, transfer_price, transfer_task_of_problem
from autoprune.evaluation.outcome import Outcome
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem
from autoprune.search.zero_shot import FittingPolicy, proposed, transferred_to
from autoprune.structure.groups import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class TransferredStart:
    """A transferable policy where it begins on a network that it has not seen: its proposals, and what it thinks."""

    outcomes: Sequence[Outcome]
    """Of the sensitivity and the uniform plan, which it reads."""
    proposals: Sequence[PruningPlan]
    """What it would evaluate, best first; none of them is evaluated yet."""
    _policy: TrainedPolicy = field(repr=False)
    _task: TransferTask = field(repr=False)

    def value(self, kept: IntArray) -> FloatArray:
        """Returns by how much its critics think plans [plans, groups] better than the sensitivity plan, in log KL."""
        groups = len(self._task.rows)
        actions = self._task.action_of(kept, groups=groups)
        values = critic_values(self._policy.network, self._task.observation(groups=groups), actions)
        return np.asarray(values.mean(axis=0))


@dataclass(frozen=True, slots=True, eq=False)
class TransferredPolicy:
    """A transferable policy that fits a network and its budget; nothing was charged for it yet."""

    fitting: FittingPolicy
    """The policy."""
    problem: Problem
    """What is searched."""
    count: int
    """Proposals at most."""
    price: int
    """Evaluations that it needs before it proposes: single-group curves, the sensitivity and the uniform plan."""

    @classmethod
    def of(cls, source: str, problem: Problem, *, count: int) -> Self:
        """Returns the policy.

        Args:
            source: As exchange.policies.fetch_policy takes it.
            problem: What is searched.
            count: Proposals at most.

        Raises:
            ValueError: It does not fit the network or its budget, or too few evaluations are left.
        """
        fitting = transferred_to(source, groups=len(problem.structure.groups), budget=problem.projector.budget)
        return cls(fitting, problem, count, transfer_price(problem))

    def start(self, rng: np.random.Generator) -> TransferredStart:
        """Returns what it begins with; its price is charged, and what it proposes is not evaluated yet.

        Args:
            rng: Draws what proposals are chosen from.
        """
        problem, fitting = self.problem, self.fitting
        task, outcomes = transfer_task_of_problem(problem, max_log_correction=fitting.max_log_correction)
        plans = proposed(fitting.policy, task, outcomes, count=self.count, rng=rng)
        return TransferredStart(outcomes, plans, fitting.policy, task)
