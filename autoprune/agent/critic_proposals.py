"""What a carried policy thinks best of a network, without evaluating anything: its critics search for its actor."""

import heapq
import math

import numpy as np
from numpy.typing import NDArray

from autoprune.agent.critic_search import critic_values
from autoprune.agent.critics import CAUTION
from autoprune.agent.sb3_model import ReplaySeed
from autoprune.agent.trained_policy import TrainedPolicy

DEPTHS = (1, 3, 8, 20)  # rounds of level switches after which proposals are taken
MANY = 48  # plans in a round
ELITE = 6
APART = 0.03  # mean difference of two proposals' actions, at least: what is alike has the same faults


def proposals(policy: TrainedPolicy, known: ReplaySeed, *, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """At most `count` new actions [any, entries], not too much alike, such as they would be executed.

    known: the setting, with what is known to be executable there. The search begins near the best of those, takes the
    others and the actor's action in, and goes to level switches that the critics prefer: by their mean, less CAUTION
    standard deviations. The farther it goes, the more it relies on them, so equal parts of the proposals are taken
    early and late (DEPTHS).
    """
    acted = np.atleast_2d(policy.act(known.observation)).astype(np.float32)
    found: dict[bytes, tuple[float, NDArray[np.float32]]] = {}
    chosen = list(known.actions)

    def judge(actions: NDArray[np.float32]) -> None:
        new = np.array(list({row.tobytes(): row for row in actions if row.tobytes() not in found}.values()))
        if len(new):
            values = _values(policy, known, new)
            found.update({row.tobytes(): (value, row) for value, row in zip(values.tolist(), new, strict=True)})

    judge(known.near(np.repeat(known.actions[known.rewards.argmax()][None], MANY, axis=0), rng))
    for depth in range(1, DEPTHS[-1] + 1):
        if depth == 2:
            judge(np.concatenate([known.actions, known.executable(acted)]))
        if depth > 1:
            elite = heapq.nlargest(ELITE, found.values(), key=lambda pair: pair[0])
            judge(known.near(np.array([elite[place][1] for place in rng.integers(len(elite), size=MANY)]), rng))
        if depth in DEPTHS:
            part = math.ceil(count * (DEPTHS.index(depth) + 1) / len(DEPTHS))
            for _, row in sorted(found.values(), key=lambda pair: -pair[0]):
                if len(chosen) == len(known.actions) + part:
                    break
                if all(np.abs(row - other).mean() > APART for other in chosen):
                    chosen.append(row)
    return np.array(chosen[len(known.actions) :], np.float32).reshape(-1, known.actions.shape[1])


def _values(policy: TrainedPolicy, known: ReplaySeed, actions: NDArray[np.float32]) -> NDArray[np.float64]:
    """[actions]: by how much the plan is better than the prior, in log KL, said with caution."""
    values = critic_values(policy.network, known.observation, actions)
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else 0.0
    found: NDArray[np.float64] = values.mean(axis=0) - CAUTION * spread
    return found
