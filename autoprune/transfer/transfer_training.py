"""One policy for many networks and budgets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autoprune.agent.agent_spec import AgentSpec, Replay
from autoprune.agent.learn import learn
from autoprune.agent.metrics import OnMetrics
from autoprune.agent.trained_policy import TrainedPolicy, normalised
from autoprune.agent.training_record import TrainingRecord
from autoprune.cost.budget_range import BudgetRange
from autoprune.env.transfer_env import TransferVectorEnv
from autoprune.search.zero_shot import transfer_record
from autoprune.transfer.studied_network import Placed, StudiedNetwork


@dataclass(frozen=True, slots=True, eq=False)
class TransferTraining:
    """A policy, and what it was trained on."""

    policy: TrainedPolicy
    """What was learned."""
    evaluations: int
    """Plans that this took, with those of the networks' curves."""
    training: TrainingRecord
    """Networks, budgets and settings, for the policy's file."""

    def tried(self, rows: Sequence[Mapping[str, Any]]) -> TrainingRecord:
        """What it was trained on, with how good it is on networks that it has not seen (HeldOut.as_row)."""
        return replace(self.training, held_out=tuple(rows))


def train(  # noqa: PLR0913 - keyword-only settings and callbacks
    networks: Sequence[StudiedNetwork],
    *,
    budgets: Sequence[BudgetRange],
    settings: int,
    agent: AgentSpec,
    evaluations: int,
    seed: int,
    on_metrics: OnMetrics = lambda metrics, step: None,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> TransferTraining:
    """A policy that learned on all networks at once, under budgets that were drawn.

    Args:
        networks: Networks with their curves.
        budgets: Ranges that budgets are drawn from.
        settings: Budgets that are drawn for each network, from all ranges evenly.
        agent: Which algorithm learns, and with which settings.
        evaluations: Plans that may be judged, the networks' curves and each setting's two plans included.
        seed: Of the random numbers, at least 0.
        on_metrics: Called with (numbers by name, step).
        on_progress: Called with (done, of).

    Raises:
        ValueError: Nothing would be left to learn from.
    """
    if agent.max_log_correction is None:
        raise ValueError(f"a policy for many networks has agent.agent.network=transferable, not {agent.network}")
    rng = np.random.default_rng(seed)
    placed = [
        pair for network in networks for pair in _settings(network, budgets, settings, agent.max_log_correction, rng)
    ]
    paid = sum(network.evaluations for network in networks) + sum(len(outcomes) for _, outcomes in placed)
    episodes = evaluations - paid
    if episodes < agent.parallel_episodes:
        raise ValueError(
            f"{paid} evaluations are needed before anything is learned: single-group curves of {len(networks)} "
            f"networks and two plans in each of {len(placed)} settings; got {evaluations}. Give it more with "
            "evaluations=N"
        )
    env = TransferVectorEnv([setting for setting, _ in placed], num_envs=agent.parallel_episodes)

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
        seeds=[setting.replay_seed(outcomes, groups=env.groups) for setting, outcomes in placed],
        begin=lambda policy: normalised(policy, np.concatenate([setting.rows for setting, _ in placed])),
    )
    training = transfer_record(
        learned.policy,
        tasks=[network.problem.task.name for network in networks],
        budget=",".join(map(str, budgets)),
        budgets=_drawn(budgets),
        seeds=(seed,),
        evaluations=paid + env.spent,
        max_log_correction=agent.max_log_correction,
    )
    return TransferTraining(learned.policy, paid + env.spent, training)


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
    return {name: (min(e.low for e in same), max(e.high for e in same)) for name, same in sorted(of.items())}


def _settings(
    network: StudiedNetwork,
    ranges: Sequence[BudgetRange],
    count: int,
    max_log_correction: float,
    rng: np.random.Generator,
) -> list[Placed]:
    """`count` of them, from all ranges as evenly as can be."""
    drawn = [
        budget
        for index, each in enumerate(ranges)
        for budget in each.draw(
            len(range(index, count, len(ranges))), network.problem.costs, network.problem.structure, rng
        )
    ]
    return [network.under(budget, max_log_correction=max_log_correction) for budget in drawn]
