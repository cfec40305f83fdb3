"""Plans for networks of a family that the policy has not seen, without learning."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.agent.bundle import save_policy
from autoprune.cost.budget_range import BudgetRange
from autoprune.transfer.held_out import held_out
from autoprune.transfer.policy import CANDIDATES, Policy
from autoprune.transfer.studied_network import StudiedNetwork
from autoprune.transfer.transfer_training import train
from experiments.cells import kept
from experiments.transfer.networks import BUDGETS, FAMILIES, agent_of, best_of, budget_of, learned, unseen

RANGE = BudgetRange("macs", 0.15, 0.8)
SETTINGS = 5  # budgets of each network
EVALUATIONS = 4_500
REACH = 1.5


def rows(cells: Path, seed: int) -> list[dict[str, Any]]:
    """Every family left out once."""
    return [
        row
        for family in FAMILIES
        for row in kept(cells, f"zero_shot_{family}_{seed}", partial(_rows, cells, family, seed))
    ]


def policy_of(cells: Path, family: str, seed: int) -> Policy:
    """The policy that has not seen the family; it is trained where it is not there."""
    folder = cells / f"policy_{family}_{seed}"
    if not (folder / "policy.json").exists():
        start = time.perf_counter()
        networks = [network for other in FAMILIES if other != family for network in learned(other)]
        trained = train(
            networks,
            budgets=[RANGE],
            settings=SETTINGS,
            agent=agent_of([f"agent.agent.max_log_correction={REACH}"]),
            evaluations=EVALUATIONS,
            seed=seed,
        )
        save_policy(trained.policy, folder, training=trained.training)
        print(f"{family} {seed}: trained in {time.perf_counter() - start:.0f} s", flush=True)
    return Policy.load(folder)


def _rows(cells: Path, family: str, seed: int) -> list[dict[str, Any]]:
    policy = policy_of(cells, family, seed)
    found = []
    for network in unseen(family):
        for text in BUDGETS:
            budget, best = budget_of(network, text), best_of(cells, network, text)
            row = held_out(policy, network, budget, family=family, best=best, seed=seed)
            found.append({"seed": seed, **row.as_json(), "switches": _switches(network, text, seed)})
    return found


def _switches(network: StudiedNetwork, text: str, seed: int) -> float:
    """The control: the least KL of the two known plans and as many random ones near the prior, a few switches away."""
    setting, outcomes = network.under(budget_of(network, text), max_log_correction=REACH)
    replay_seed = setting.replay_seed(outcomes, groups=len(setting.rows))
    priors = np.repeat(replay_seed.actions[:1], CANDIDATES, axis=0)
    near = replay_seed.neighbours(priors, np.random.default_rng(seed))
    plans = [setting.structure.plan(row) for row in setting.plans_of(near)]
    return float(min(outcome.metrics.kl for outcome in [*outcomes, *setting.evaluate(plans)]))
