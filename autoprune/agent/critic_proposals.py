"""What a transferable policy thinks best of a network, without evaluating: its critics search for its actor."""

import heapq
import math

import numpy as np
from numpy.typing import NDArray

from autoprune.agent.critic_search import critic_values
from autoprune.agent.critics import CAUTION
from autoprune.agent.trained_policy import TrainedPolicy
from autoprune.env.replay_seed import ReplaySeed

DEPTHS = (1, 3, 8, 20)  # rounds of level switches after which proposals are taken
PER_ROUND = 48  # plans in a round
ELITE = 6
APART = 0.03  # mean difference of two proposals' actions, at least: what is alike has the same faults


def proposals(policy: TrainedPolicy, seed: ReplaySeed, *, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Returns at most `count` new actions [any, entries], not too much alike, such as they would be executed.

    The search begins near the best known plan, takes the others and the actor's action in, and goes to level switches
    that the critics prefer: by their mean, less CAUTION standard deviations. The farther it goes, the more it relies on
    them, so equal parts of the proposals are taken early and late (DEPTHS).

    Args:
        policy: With an actor and critics.
        seed: What is known of the network under its budget.
        count: Proposals at most.
        rng: Draws level switches.
    """
    acted = np.atleast_2d(policy.act(seed.observation)).astype(np.float32)
    judged: dict[bytes, tuple[float, NDArray[np.float32]]] = {}
    chosen = list(seed.actions)

    def judge(actions: NDArray[np.float32]) -> None:
        new = np.array(list({row.tobytes(): row for row in actions if row.tobytes() not in judged}.values()))
        if len(new):
            values = _cautious(policy, seed.observation, new)
            judged.update({row.tobytes(): (value, row) for value, row in zip(values.tolist(), new, strict=True)})

    judge(seed.neighbours(np.repeat(seed.actions[seed.rewards.argmax()][None], PER_ROUND, axis=0), rng))
    for depth in range(1, DEPTHS[-1] + 1):
        if depth == 2:
            judge(np.concatenate([seed.actions, seed.executable(acted)]))
        if depth > 1:
            elite = heapq.nlargest(ELITE, judged.values(), key=lambda pair: pair[0])
            parents = rng.integers(len(elite), size=PER_ROUND)
            judge(seed.neighbours(np.array([elite[parent][1] for parent in parents]), rng))
        if depth in DEPTHS:
            part = math.ceil(count * (DEPTHS.index(depth) + 1) / len(DEPTHS))
            for _, row in sorted(judged.values(), key=lambda pair: -pair[0]):
                if len(chosen) == len(seed.actions) + part:
                    break
                if all(np.abs(row - other).mean() > APART for other in chosen):
                    chosen.append(row)
    return np.array(chosen[len(seed.actions) :], np.float32).reshape(-1, seed.actions.shape[1])


def _cautious(
    policy: TrainedPolicy, observation: NDArray[np.float32], actions: NDArray[np.float32]
) -> NDArray[np.float64]:
    """[actions]: by how much the plan is better than the prior, in log KL, less what critics disagree about."""
    values = critic_values(policy.network, observation, actions)
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(len(actions))
    return np.asarray(values.mean(axis=0) - CAUTION * spread)
