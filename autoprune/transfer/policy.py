"""A policy that is used again, on any network: no run, no configuration."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from torch import nn

from autoprune.agent.bundle import load_policy, load_training
from autoprune.agent.training_record import TrainingRecord
from autoprune.cost.budget import Budget
from autoprune.evaluation.outcome import Outcome
from autoprune.exchange.policies import fetch_policy
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem
from autoprune.problem.spec import ProblemSpec
from autoprune.search.zero_shot import proposed, transferred_to
from autoprune.task.task import Task
from autoprune.transfer.studied_network import StudiedNetwork

POLICY, SENSITIVITY, UNIFORM = "policy", "sensitivity", "uniform"
CANDIDATES = 8


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """The plan that was chosen on held-out search data, of the policy's best, the sensitivity and the uniform one.

    chosen: whose it is. outcomes: of all three, on the proxy samples; scores: on the held-out ones, by which it was
    chosen; higher is better. evaluations: plans that were judged, those of the single-group curves included. seconds:
    what it took the policy to propose plans, without the curves and without judging what it proposed.
    """

    plan: PruningPlan
    chosen: str
    outcomes: Mapping[str, Outcome]
    scores: Mapping[str, float]
    evaluations: int
    seconds: float
    problem: Problem

    def network(self) -> nn.Module:
        """The smaller network, repaired from the calibration data; no gradient step was made."""
        return self.problem.pruned(self.plan)


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that was trained on many networks, such as `autoprune train` makes.

    >>> from autoprune import Policy  # doctest: +SKIP
    >>> Policy.load("shipped").plan("digits", "macs:0.4").chosen  # doctest: +SKIP
    'policy'
    """

    folder: Path
    training: TrainingRecord

    @classmethod
    def load(cls, source: str | Path = "shipped") -> Self:
        """source: a folder, `shipped`, or as exchange.policies.fetch_policy takes it. Nothing in it is executed.

        Raises ValueError where there is none, or where it was damaged, edited or made by another version.
        """
        folder = fetch_policy(str(source))
        load_policy(folder)
        return cls(folder, load_training(folder))

    def plan(
        self, task: str | Task, budget: str | None = None, *, candidates: int = CANDIDATES, seed: int = 0
    ) -> Planned:
        """A plan for a network that the policy has never seen; nothing is learned.

        task: one of one's own, or the name of one that comes along. budget: `cost:amount`; None: the task's.
        candidates: plans of the policy's that are judged. Raises ValueError for a budget that it was not trained for.
        """
        problem = Problem.prepare(task, ProblemSpec(budget=budget))
        bound = problem.projector.budget
        transferred_to(str(self.folder), groups=len(problem.structure.groups), budget=bound)  # refused before it costs
        try:
            return self.plan_for(StudiedNetwork.study(problem), bound, candidates=candidates, seed=seed)
        finally:
            problem.close()

    def plan_for(
        self, network: StudiedNetwork, budget: Budget, *, candidates: int = CANDIDATES, seed: int = 0
    ) -> Planned:
        """The same for a network whose single-group curves are there."""
        if candidates < 1:
            raise ValueError(f"candidates must be at least 1 plan of the policy's, got {candidates}")
        problem = network.problem.under(budget)
        carried = transferred_to(str(self.folder), groups=len(problem.structure.groups), budget=budget)
        setting, (prior, uniform) = network.under(budget, max_log_correction=carried.max_log_correction)
        start = time.perf_counter()
        plans = proposed(carried.policy, setting, [prior, uniform], count=candidates, rng=np.random.default_rng(seed))
        seconds = time.perf_counter() - start
        found = setting.evaluate(plans)
        outcomes = {SENSITIVITY: prior, UNIFORM: uniform}
        if able := [outcome for outcome in found if outcome.failed is None]:
            outcomes = {POLICY: max(able, key=lambda outcome: outcome.reward), **outcomes}
        scores = problem.held_out_scores({name: problem.pruned(o.plan) for name, o in outcomes.items()})
        chosen = max(scores, key=lambda name: scores[name])  # the policy's where there is a tie
        return Planned(
            outcomes[chosen].plan,
            chosen,
            outcomes,
            scores,
            evaluations=network.evaluations + 2 + len(found),
            seconds=seconds,
            problem=problem,
        )
