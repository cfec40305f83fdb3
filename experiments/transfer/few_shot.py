"""Searches that go on from a policy, beside those that begin from nothing."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.problem.problem import Search
from autoprune.search import few_shot
from autoprune.transfer.studied_network import StudiedNetwork
from experiments.cells import kept
from experiments.transfer.networks import FAMILIES, agent_of, best_of, budget_of, unseen
from experiments.transfer.zero_shot import policy_of

BUDGET = "macs:0.3"
EVALUATIONS = 200  # beside the single-group curves
AGENT = [
    "agent.agent.experience.updates_per_episode=1",
    "agent.agent.critic_guidance.exploration_fraction=0",
    "agent.agent.hyperparameters.batch_size=128",
]


def rows(cells: Path, seed: int) -> list[dict[str, Any]]:
    """One network of each family, the shipped one where there is one."""
    return [
        kept(cells, f"few_shot_{network.problem.task.name}_{seed}", partial(_row, cells, network, family, seed))
        for family in FAMILIES
        for network in unseen(family)[:1]
    ]


def _row(cells: Path, network: StudiedNetwork, family: str, seed: int) -> dict[str, Any]:
    agent = agent_of(AGENT)
    policy = str(policy_of(cells, family, seed).folder)
    best = best_of(cells, network, BUDGET)
    within = network.problem.under(budget_of(network, BUDGET))
    (known,) = within.objective.uncharged.evaluate([best], whole=True)
    return {
        "seed": seed,
        "network": network.problem.task.name,
        "family": family,
        "budget": BUDGET,
        "curves": network.evaluations,
        "best": known.metrics.kl,
        "scratch": _searched(network, partial(few_shot.search, policy=None, agent=agent, policy_evaluations=1), seed),
        "few_shot": _searched(
            network, partial(few_shot.search, policy=policy, agent=agent, policy_evaluations=1), seed
        ),
    }


def _searched(network: StudiedNetwork, search: Search, seed: int) -> list[float]:
    """The KL of every plan that was judged after the curves, in order: sensitivity and uniform first."""
    with tempfile.TemporaryDirectory() as folder:
        kl: list[float] = []
        limit = network.evaluations + EVALUATIONS
        problem = network.problem.under(budget_of(network, BUDGET)).limited(
            limit,
            seed=seed,
            folder=Path(folder),
            record=lambda outcome, _, phase: kl.append(outcome.metrics.kl) if phase == "search" else None,
        )
        search(problem, rng=np.random.default_rng(seed))
    return [round(value, 6) for value in kl]
