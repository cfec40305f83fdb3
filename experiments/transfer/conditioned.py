"""One policy for every budget of one network, beside a search for each."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.agent.bundle import save_policy
from autoprune.cost.budget_range import BudgetRange
from autoprune.search import few_shot
from autoprune.transfer.policy import CANDIDATES, POLICY, SENSITIVITY, UNIFORM, Policy
from autoprune.transfer.studied_network import StudiedNetwork
from autoprune.transfer.transfer_training import train
from experiments.cells import kept
from experiments.transfer.few_shot import AGENT
from experiments.transfer.networks import agent_of, budget_of, unseen

RANGE = BudgetRange("macs", 0.2, 0.8)
BUDGETS = ("macs:0.25", "macs:0.35", "macs:0.45", "macs:0.55", "macs:0.65")
SETTINGS = 12
ONE_SEARCH = 300  # evaluations, the single-group curves included
SPENT = 450  # by the one policy, its plans at all budgets included


def networks() -> list[StudiedNetwork]:
    return [unseen(family)[-1] for family in ("residual", "plain", "depthwise")]


def rows(cells: Path, seed: int) -> list[dict[str, Any]]:
    return [
        kept(cells, f"conditioned_{network.problem.task.name}_{seed}", partial(_row, cells, network, seed))
        for network in networks()
    ]


def _row(cells: Path, network: StudiedNetwork, seed: int) -> dict[str, Any]:
    name = network.problem.task.name
    trained = train(
        [network],
        budgets=[RANGE],
        settings=SETTINGS,
        agent=agent_of(AGENT),
        evaluations=SPENT - len(BUDGETS) * (CANDIDATES + 2),
        seed=seed,
    )
    folder = cells / f"conditioned_policy_{name}_{seed}"
    save_policy(trained.policy, folder, training=trained.training)
    policy, kl = Policy.load(folder), {}
    for text in BUDGETS:
        planned = policy.plan_for(network, budget_of(network, text), seed=seed)
        found = {whose: outcome.metrics.kl for whose, outcome in planned.outcomes.items()}
        kl[text] = {
            "policy": min(found.get(POLICY, found[SENSITIVITY]), found[SENSITIVITY], found[UNIFORM]),
            "sensitivity": found[SENSITIVITY],
            "uniform": found[UNIFORM],
            "dedicated": kept(
                cells, f"dedicated_{name}_{text.replace(':', '_')}_{seed}", partial(_dedicated, network, text, seed)
            ),
        }
    return {"seed": seed, "network": name, "evaluations": SPENT, "search": ONE_SEARCH, "kl": kl}


def _dedicated_once(cells: Path, network: StudiedNetwork, text: str, seed: int) -> float:
    name = f"dedicated_{network.problem.task.name}_{text.replace(':', '_')}_{seed}"
    return float(kept(cells, name, partial(_dedicated, network, text, seed)))


def _dedicated(network: StudiedNetwork, text: str, seed: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        problem = network.problem.under(budget_of(network, text)).limited(ONE_SEARCH, seed=seed, folder=Path(folder))
        search = partial(few_shot.search, policy=None, agent=agent_of(AGENT), policy_evaluations=1)
        plan = search(problem, rng=np.random.default_rng(seed))
    (outcome,) = network.problem.under(budget_of(network, text)).objective.uncharged.evaluate([plan], whole=True)
    return outcome.metrics.kl
