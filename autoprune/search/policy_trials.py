"""A policy judged by itself: the plan that it makes without exploring, before it learns, on the way and at the end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import gymnasium
import numpy as np
from torch import Tensor

from autoprune.agent.trained_policy import TrainedPolicy
from autoprune.cost.model import FloatArray
from autoprune.evaluation.metered import POLICY
from autoprune.evaluation.outcome import Outcome
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem

LEAST_SHARE = 10  # evaluations of the agent for one of its policy, at least


@dataclass(slots=True, eq=False)
class PolicyTrials:
    """Evaluates a policy's own plan before it learns, a few times on the way and at the end; keeps its best weights.

    So nobody gets a policy that is worse than the one that had not learned: with a prior, that one makes the prior's
    plan.
    """

    problem: Problem
    """What is searched."""
    env: gymnasium.Env
    """Where the policy plays, whose plans are judged by `own_evaluations`."""
    price: int
    """Evaluations of one episode."""
    trials: int
    """How often, at most; fewer where that would be more than one in LEAST_SHARE evaluations. One is at the end, the
    second before it learns."""
    best: Outcome | None = None
    """Of the best plan so far that was the policy's own."""
    _weights: dict[str, Tensor] = field(default_factory=dict)
    _parts: int = 0
    _total: int = 0

    def __post_init__(self) -> None:
        self._total = self.problem.objective.left
        self.trials = affordable(self.trials, self._total, price=self.price)

    @property
    def reserved(self) -> int:
        """Evaluations that the agent must leave for the end."""
        return self.price

    def begin(self, policy: TrainedPolicy) -> None:
        """Plays the first episode, with the weights that have not learned; not where one trial is all there is."""
        if self.trials > 1:
            self._play(policy)

    def when_due(self, policy: TrainedPolicy) -> None:
        """Plays an episode if another part of the search is over; the last one is `finish`'s."""
        left, between = self.problem.objective.left, self.trials - 2
        parts = min(between, (self._total - left) * (between + 1) // self._total)
        if parts > self._parts and left >= 2 * self.price:
            self._parts = parts
            self._play(policy)

    def finish(self, policy: TrainedPolicy) -> None:
        """Plays the last episode, and gives the policy the weights that made its best plan."""
        self._play(policy)
        policy.network.load_state_dict(self._weights)

    def _play(self, policy: TrainedPolicy) -> None:
        outcome = play(self.env, policy)
        if self.best is None or outcome.reward >= self.best.reward:
            weights = policy.network.state_dict()
            self.best, self._weights = outcome, {name: value.clone() for name, value in weights.items()}


def affordable(trials: int, evaluations: int, *, price: int) -> int:
    """Returns how many trials at that price there are in so many evaluations; at least the first and the last.

    Where an episode costs several evaluations, the first is left out before the last.

    Args:
        trials: Episodes of the policy alone, at least 1.
        evaluations: How many plans may be evaluated.
        price: Evaluations that one of them costs.
    """
    if trials < 1:
        raise ValueError(f"agent.policy_evaluations must be at least 1, got {trials}")
    return min(trials, max(2 if price == 1 else 1, evaluations // (LEAST_SHARE * price)))


def own_evaluations(problem: Problem, *, projected: bool) -> Callable[[Sequence[PruningPlan]], list[Outcome]]:
    """Returns what judges a policy's own plans: whole, and moved into the budget where they are not yet.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        projected: Whether the environment moves plans into the budget.
    """

    def evaluate(plans: Sequence[PruningPlan]) -> list[Outcome]:
        if not projected:
            density: FloatArray = np.maximum(np.array([plan.kept for plan in plans]), 0.5) / problem.structure.units
            plans = [problem.structure.plan(row) for row in problem.projector.project(density)]
        return problem.objective.evaluate(plans, phase=POLICY)

    return evaluate


def play(env: gymnasium.Env, policy: TrainedPolicy) -> Outcome:
    """Plays one episode of the policy without exploration; returns its last plan's outcome.

    Args:
        env: The environment.
        policy: The trained policy.
    """
    observation, _ = env.reset(seed=0)
    policy.begin()
    while True:
        observation, _, terminated, truncated, info = env.step(policy.act(observation))
        if terminated or truncated:
            outcome: Outcome = info["outcome"]
            return outcome
