"""Critic-guided agents on problems whose best action is known."""

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from autoprune.agent.agent_spec import Replay
from autoprune.agent.critic_search import CriticGuidance
from autoprune.env.replay_seed import ReplaySeed
from tests.agent.environments import KnownAnswer, small_agent

PROPOSALS = CriticGuidance(
    candidates_per_evaluation=24,
    actor_fraction=0.1,
    neighbour_fraction=0.3,
    elite=4,
    max_changed_groups=2,
    sigmas=(0.1, 0.3),
    ucb_coefficient=1.0,
    crossover_probability=0.2,
)
OBSERVED = np.array([0.0, 0.0, 1.0], np.float32)
BEST = np.array([-0.4, 0.4, 0.1, 0.7])
Actions = NDArray[np.float32]


def coarse(actions: Actions) -> Actions:
    """Twentieths are what can be executed."""
    return (np.round(np.asarray(actions, np.float64) * 20) / 20).astype(np.float32)


def beside(actions: Actions, rng: np.random.Generator) -> Actions:
    """One entry of each is a twentieth more or less."""
    places = rng.integers(actions.shape[1], size=len(actions))
    steps = np.eye(actions.shape[1])[places] * rng.choice([-0.05, 0.05], (len(actions), 1))
    return coarse(np.clip(actions + steps, -1, 1))


class Coarse(KnownAnswer):
    """KnownAnswer that executes twentieths."""

    def execute(self, action: Any) -> Any:
        return coarse(np.clip(action, -1, 1))


def environments(many: int, best: NDArray[np.float64] = BEST) -> Any:
    return SyncVectorEnv([lambda: Coarse(best, steps=1) for _ in range(many)], autoreset_mode=AutoresetMode.SAME_STEP)


def replay_seed(best: NDArray[np.float64] = BEST, others: int = 5) -> ReplaySeed:
    """Random actions that cannot be done, said to be excellent, and last what was: no change, and what it earned."""
    actions = np.random.default_rng(3).uniform(-1, 1, (others + 1, len(best))).astype(np.float32)
    actions[-1] = 0.0
    rewards = np.append(np.full(others, 5.0), -float(np.mean(best**2)))
    return ReplaySeed(observation=OBSERVED, actions=actions, rewards=rewards, executable=coarse, neighbours=beside)


def critic_guided(
    *, parallel: int = 3, guidance: CriticGuidance = PROPOSALS, algorithm: str = "SAC", **replay: Any
) -> Any:
    experience = Replay(300, 0, parallel=parallel, updates_per_episode=2, **replay)
    plain = {"actor_learning_rate": None, "noise": None}
    return small_agent(algorithm, experience=experience, critic_guidance=guidance, **plain)
