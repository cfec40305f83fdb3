"""How good a policy is on networks that it has never seen: between the uniform plan and the best one known."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.cost.budget import Budget
from autoprune.evaluation.judge import Judge
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Search
from autoprune.search import evolution
from autoprune.transfer.policy import SENSITIVITY, UNIFORM, Planned, Policy
from autoprune.transfer.studied_network import StudiedNetwork

BEST, RETURNED = "best", "returned"
REFERENCE: Search = partial(evolution.search, start="sensitivity", offspring=8, switches=3, step=0.12)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Plans for a network under a budget, compared by their KL to the dense network."""

    network: str
    """Its name."""
    family: str
    """Of the network, for reports."""
    budget: str
    """As it was written."""
    chosen: str
    """Whose plan was returned: policy, sensitivity or uniform."""
    evaluations: int
    """Plans that were judged for it."""
    seconds: float
    """What it took the policy to propose plans."""
    kl: Mapping[str, Mapping[str, float]]
    """Data role → plan → KL in nats. Roles: `search`, the proxy samples; `held_out`, by which the returned plan is
    chosen; `test`. Plans: `policy`, its best; `returned`; `sensitivity`; `uniform`; `best`, of all that are known, by
    the proxy samples."""

    def score(self, plan: str) -> float:
        """0: as good as the uniform plan, 1: as the best known; within [−1, 1], and 0 where those two are the same.

        On the search role. The plan is one of POLICY, RETURNED, SENSITIVITY, UNIFORM and BEST.
        """
        kl = self.kl["search"]
        span = kl[UNIFORM] - kl[BEST]
        return float(np.clip((kl[UNIFORM] - kl[plan]) / span, -1, 1)) if span > 0 else 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def as_row(self) -> dict[str, Any]:
        """As a policy's card has it: of the plan that was returned."""
        return {
            "network": self.network,
            "family": self.family,
            "budget": self.budget,
            "score": round(self.score(RETURNED), 4),
            "sensitivity": round(self.score(SENSITIVITY), 4),
        }


def reference_plan(network: StudiedNetwork, budget: Budget, *, evaluations: int, seed: int) -> PruningPlan:
    """What evolution finds from the sensitivity plan in so many evaluations, curves not counted.

    Args:
        network: A network with its single-group curves.
        budget: The bound, relative to the dense network.
        evaluations: How many plans may be evaluated.
        seed: Of the random numbers, at least 0.
    """
    with tempfile.TemporaryDirectory() as folder:
        limit = network.evaluations + evaluations
        problem = network.problem.under(budget).limited(limit, seed=seed, folder=Path(folder))
        return REFERENCE(problem, rng=np.random.default_rng(seed))


def held_out(
    policy: Policy, network: StudiedNetwork, budget: Budget, *, family: str, best: PruningPlan, seed: int
) -> HeldOut:
    """The policy's plan for a network, compared.

    Args:
        policy: The trained policy.
        network: A network with its single-group curves.
        budget: The bound, relative to the dense network.
        family: Of networks, for reports.
        best: One that is known to be good.
        seed: Of the random numbers, at least 0.
    """
    planned = policy.plan_for(network, budget, seed=seed)
    return compared(network, planned, budget, family=family, best=best)


def compared(network: StudiedNetwork, planned: Planned, budget: Budget, *, family: str, best: PruningPlan) -> HeldOut:
    problem = planned.problem
    plans = {name: outcome.plan for name, outcome in planned.outcomes.items()}
    candidates = list({*plans.values(), best})
    outcomes = dict(zip(candidates, problem.objective.uncharged.evaluate(candidates, whole=True), strict=True))
    plans |= {RETURNED: planned.plan, BEST: max(candidates, key=lambda plan: outcomes[plan].reward)}
    roles = {"held_out": problem.held_out, "test": problem.task.data.test}
    judges = {name: Judge(problem.task, role) for name, role in roles.items()}
    networks = {plan: problem.pruned(plan) for plan in set(plans.values())}
    kl = {"search": {name: outcomes[plan].metrics.kl for name, plan in plans.items()}}
    for role, judge in judges.items():
        divergence = {plan: judge(pruned).kl for plan, pruned in networks.items()}
        kl[role] = {name: divergence[plan] for name, plan in plans.items()}
    return HeldOut(problem.task.name, family, budget.text, planned.chosen, planned.evaluations, planned.seconds, kl)
