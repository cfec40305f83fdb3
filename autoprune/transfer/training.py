"""One policy for many networks and budgets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autoprune.agent.learn import learn
from autoprune.agent.metrics import OnMetrics
from autoprune.agent.policy import Policy, normalised
from autoprune.agent.spec import AgentSpec, Replay
from autoprune.agent.training import Training
from autoprune.cost.budget_range import BudgetRange
from autoprune.env.carried import CarriedVectorEnv
from autoprune.search.carried import carried_training
from autoprune.search.setting import known_of
from autoprune.transfer.network import Network, Placed


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A policy, what it was trained on, and how many plans that took, with those of the networks' curves."""

    policy: Policy
    evaluations: int
    training: Training

    def tried(self, rows: Sequence[Mapping[str, Any]]) -> Training:
        """What it was trained on, with how good it is on networks that it has not seen (HeldOut.as_row)."""
        return replace(self.training, held_out=rows)


def train(
    networks: Sequence[Network],
    *,
    budgets: Sequence[BudgetRange],
    settings: int,
    agent: AgentSpec,
    evaluations: int,
    seed: int,
    on_metrics: OnMetrics = lambda metrics, step: None,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> Trained:
    """A policy that learned on all networks at once, under budgets that were drawn.

    settings: budgets that are drawn for each network, from all ranges evenly. evaluations: plans that may be judged,
    the networks' curves and each setting's two plans included. Raises ValueError where nothing would be left to learn
    from.
    """
    if agent.reach is None:
        raise ValueError(f"a policy for many networks has agent.agent.network=carried, not {agent.network}")
    rng = np.random.default_rng(seed)
    placed = [pair for network in networks for pair in _settings(network, budgets, settings, agent.reach, rng)]
    paid = sum(network.evaluations for network in networks) + sum(len(outcomes) for _, outcomes in placed)
    episodes = evaluations - paid
    if episodes < agent.parallel_episodes:
        raise ValueError(
            f"{paid} evaluations are needed before anything is learned: single-group curves of {len(networks)} "
            f"networks and two plans in each of {len(placed)} settings; got {evaluations}. Give it more with "
            "evaluations=N"
        )
    env = CarriedVectorEnv([setting for setting, _ in placed], num_envs=agent.parallel_episodes)

    def stop() -> bool:
        on_progress(paid + env.spent, evaluations)
        return env.spent + env.num_envs > episodes

    learned = learn(
        _remembering(agent, episodes, settings=len(placed)),
        env=env,
        episode_steps=1,
        episodes=episodes,
        seed=seed,
        on_metrics=on_metrics,
        stop=stop,
        known=[known_of(setting, outcomes, groups=env.groups) for setting, outcomes in placed],
        begin=lambda policy: normalised(policy, np.concatenate([setting.rows for setting, _ in placed])),
    )
    training = carried_training(
        learned.policy,
        tasks=[network.prepared.task.name for network in networks],
        budget=",".join(map(str, budgets)),
        budgets=_drawn(budgets),
        seeds=(seed,),
        evaluations=paid + env.spent,
        reach=agent.reach,
    )
    return Trained(learned.policy, paid + env.spent, training)


def _remembering(agent: AgentSpec, episodes: int, *, settings: int) -> AgentSpec:
    """The agent with a replay that holds all that it will do, and a batch of what is known in each setting."""
    if not isinstance(agent.experience, Replay):
        raise TypeError(f"{agent.algorithm} learns from a replay")
    batch = agent.experience.parallel
    needed = episodes + (settings + 4) * batch
    return replace(agent, experience=replace(agent.experience, episodes=max(needed, agent.experience.episodes)))


def _drawn(ranges: Sequence[BudgetRange]) -> dict[str, tuple[float, float]]:
    """Cost → lowest and highest."""
    names = {each.cost for each in ranges}
    of = {name: [each for each in ranges if each.cost == name] for name in names}
    return {name: (min(e.low for e in found), max(e.high for e in found)) for name, found in sorted(of.items())}


def _settings(
    network: Network, ranges: Sequence[BudgetRange], count: int, reach: float, rng: np.random.Generator
) -> list[Placed]:
    """`count` of them, from all ranges as evenly as can be."""
    drawn = [
        budget
        for place, each in enumerate(ranges)
        for budget in each.draw(
            len(range(place, count, len(ranges))), network.prepared.costs, network.prepared.structure, rng
        )
    ]
    return [network.under(budget, reach=reach) for budget in drawn]
