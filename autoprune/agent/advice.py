"""What a carried policy thinks best of a network, without evaluating anything: its critics search for its actor."""

import heapq
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autoprune.agent.build import Known
from autoprune.agent.critics import CAUTION
from autoprune.agent.policy import Policy

ROUNDS = 40  # of level switches near what is thought best
MANY = 48  # in a round
ELITE = 6
APART = 0.03  # mean difference of two proposals' actions, at least: what is alike has the same faults


def proposals(policy: Policy, known: Known, *, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """At most `count` new actions [any, entries], not too much alike, best first, such as they would be executed.

    known: the setting, with what is known to be executable there. The search begins at those and at the actor's action,
    and goes to level switches that the critics prefer: by their mean, less CAUTION standard deviations.
    """
    acted = np.atleast_2d(policy.act(known.observation)).astype(np.float32)
    first = np.concatenate([known.actions, known.executable(acted)])
    found = {row.tobytes(): (value, row) for value, row in zip(_values(policy, known, first), first, strict=True)}
    for _ in range(ROUNDS):
        elite = heapq.nlargest(ELITE, found.values(), key=lambda pair: pair[0])
        parents = np.array([elite[place][1] for place in rng.integers(len(elite), size=MANY)])
        moved = known.near(parents, rng)
        found |= {row.tobytes(): (value, row) for value, row in zip(_values(policy, known, moved), moved, strict=True)}
    chosen = list(known.actions)
    for _, row in sorted(found.values(), key=lambda pair: -pair[0]):
        if len(chosen) < len(known.actions) + count and all(np.abs(row - other).mean() > APART for other in chosen):
            chosen.append(row)
    return np.array(chosen[len(known.actions) :], np.float32).reshape(-1, known.actions.shape[1])


@torch.no_grad()
def _values(policy: Policy, known: Known, actions: NDArray[np.float32]) -> NDArray[np.float64]:
    """[actions]: by how much the plan is better than the prior, in log KL, said with caution."""
    network: Any = policy.network
    network.set_training_mode(False)
    observations = torch.as_tensor(np.repeat(known.observation[None], len(actions), axis=0))
    values = torch.stack([value.squeeze(1) for value in network.critic(observations, torch.as_tensor(actions))])
    spread = values.std(dim=0) if len(values) > 1 else 0.0
    return np.asarray((values.mean(dim=0) - CAUTION * spread).double().numpy())
