"""What is known before an agent acts is what its replay begins with."""

from typing import Any

import numpy as np
import pytest

from autoprune.agent.learn import learn
from autoprune.agent.metrics import logger
from autoprune.agent.sb3_model import build, seed_replay
from autoprune.agent.vec_env import vectorized
from tests.agent.critic_guided import BEST, Coarse, critic_guided, environments, replay_seed
from tests.agent.environments import small_agent


def test_what_is_known_begins_the_replay() -> None:
    """Whole rows: with 3 episodes at once, 5 others take 6 places, and the last is there for each episode."""
    agent, seed = critic_guided(parallel=3, standardised=True), replay_seed(others=5)
    model: Any = build(agent, env=vectorized(environments(3)), episode_steps=1, episodes=30, seed=0)
    model.set_logger(logger(lambda metrics, step: None))
    seed_replay(agent, model, [seed], seed=0)
    replay = model.replay_buffer
    assert (replay.pos, replay.seeded) == (3, 2)
    assert {tuple(row) for row in np.round(replay.actions[:2].reshape(6, -1), 5).tolist()} == {
        tuple(row) for row in np.round(seed.actions[:5], 5).tolist()
    }
    assert replay.actions[2].tolist() == [[0.0] * 4] * 3
    assert replay.rewards[:2].ravel().tolist() == [5.0] * 6
    assert model._n_updates > 0, "and is learned from"
    assert model._elite(seed.observation.tobytes()).tolist() == [[0.0] * 4] * 3


def test_only_a_replay_can_begin_with_what_is_known() -> None:
    on: Any = {"on_metrics": lambda metrics, step: None}
    with pytest.raises(ValueError, match=r"agent.env.seed_replay.*PPO"):
        learn(
            small_agent("PPO"),
            env=Coarse(BEST, steps=1),
            episode_steps=1,
            episodes=16,
            seed=0,
            seeds=[replay_seed()],
            **on,
        )
    with pytest.raises(ValueError, match=r"agent.env.mode=one_shot"):
        learn(critic_guided(parallel=1), env=Coarse(BEST, steps=1), episode_steps=1, episodes=16, seed=0, **on)
