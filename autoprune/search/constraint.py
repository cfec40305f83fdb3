"""How an agent is brought to keep to the budget: by projection, or by what its reward says of exceeding it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from autoprune.cost.budget import Budget
from autoprune.evaluation.outcome import Outcome
from autoprune.ranges import NonNegative, Positive, check_fields

COLLAPSED = 1e-3  # share of the budget below which `Free` counts a cost as this


class Constraint(Protocol):
    """What an agent's reward says of the budget.

    A search spends its last evaluation on its policy's plan, projected, so that it has met one inside the budget.
    """

    @property
    def projected(self) -> bool:
        """Every action becomes a plan inside the budget; otherwise actions are only rounded and plans may exceed it."""
        ...

    def rewards(self, outcomes: Sequence[Outcome], budget: Budget) -> list[float]:
        """The agent's rewards for a batch of plans.

        Args:
            outcomes: What was evaluated, with its results.
            budget: The bound, relative to the dense network.
        """
        ...


@dataclass(frozen=True, slots=True)
class Projection:
    """Plans are moved into the budget and fill it, so the reward need not speak of it."""

    projected: bool = True
    """Plans are moved into the budget."""

    def rewards(self, outcomes: Sequence[Outcome], budget: Budget) -> list[float]:
        return [outcome.reward for outcome in outcomes]


@dataclass(frozen=True, slots=True)
class Penalty:
    """The reward less multiplier × the excess over the budget, as a fraction of it."""

    multiplier: NonNegative
    """Of the excess."""
    projected: bool = False
    """Whether plans are moved into the budget all the same."""

    def __post_init__(self) -> None:
        check_fields(self, "constraint")

    def rewards(self, outcomes: Sequence[Outcome], budget: Budget) -> list[float]:
        return [outcome.reward - self.multiplier * excess(outcome, budget) for outcome in outcomes]


@dataclass(slots=True)
class Lagrangian:
    """A penalty whose multiplier rises while plans exceed the budget and falls while they stay below it.

    λ ← max(0, λ + rate · mean (cost/budget − 1)) after every batch of plans: dual ascent on the constraint, as in
    reward-constrained policy optimisation (arXiv 1805.11074). It acts on the signed excess, so a plan that leaves some
    of the budget unused earns λ times that.
    """

    multiplier: NonNegative
    """λ before the first batch."""
    rate: Positive
    """How fast λ moves."""
    projected: bool = False
    """Whether plans are moved into the budget all the same."""

    def __post_init__(self) -> None:
        check_fields(self, "constraint")

    def rewards(self, outcomes: Sequence[Outcome], budget: Budget) -> list[float]:
        over = np.array([share(outcome, budget) - 1 for outcome in outcomes])
        rewards = [outcome.reward - self.multiplier * each for outcome, each in zip(outcomes, over, strict=True)]
        self.multiplier = max(0.0, self.multiplier + self.rate * float(over.mean()))
        return [float(reward) for reward in rewards]


@dataclass(frozen=True, slots=True)
class Free:
    """AMC's reward where no budget is given: −error · log(cost) (arXiv 1802.03494); the error is 1 − the task's metric.

    The cost is counted in thousandths of the budget, so that its logarithm is positive.
    """

    projected: bool = False
    """Plans stay as they are."""

    def rewards(self, outcomes: Sequence[Outcome], budget: Budget) -> list[float]:
        return [
            -_error(outcome) * math.log(1 + max(share(outcome, budget), COLLAPSED) / COLLAPSED) for outcome in outcomes
        ]


def rewarded(outcomes: Sequence[Outcome], constraint: Constraint, budget: Budget) -> list[Outcome]:
    """The outcomes as the agent is told them.

    Args:
        outcomes: What was evaluated, with its results.
        constraint: How the search keeps its budget.
        budget: The bound, relative to the dense network.
    """
    rewards = constraint.rewards(outcomes, budget)
    return [replace(outcome, reward=reward) for outcome, reward in zip(outcomes, rewards, strict=True)]


def share(outcome: Outcome, budget: Budget) -> float:
    """The plan's cost as a fraction of the budget.

    Args:
        outcome: A plan with its results.
        budget: The bound, relative to the dense network.
    """
    return float(budget.cost(np.array(outcome.plan.kept))) / budget.limit


def excess(outcome: Outcome, budget: Budget) -> float:
    return max(0.0, share(outcome, budget) - 1)


def _error(outcome: Outcome) -> float:
    """1 where the plan could not be judged: its reward is on another scale, and may be more than all of these."""
    return 1.0 if math.isnan(outcome.metrics.accuracy) else 1 - outcome.metrics.accuracy
