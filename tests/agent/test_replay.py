"""The replay holds what was executed; terminal rewards reach every transition of their episode and no other."""

from typing import Any

import gymnasium
import numpy as np
import pytest

from autoprune.agent.agent_spec import Replay
from autoprune.agent.replay import ExecutedActionReplayBuffer, TerminalRewardReplayBuffer
from autoprune.agent.sb3_model import build
from tests.agent.environments import KnownAnswer, KnownLevel, small_agent
from tests.agent.transitions import BOX, OBSERVATION, add


@pytest.mark.parametrize("algorithm", ["CrossQ", "DDPG", "TD3", "SAC", "TQC"])
def test_the_replay_of_a_learning_agent_holds_executed_actions(algorithm: str) -> None:
    env = KnownAnswer(np.zeros(6), steps=3, bound=0.25)
    agent = small_agent(algorithm, experience=Replay(episodes=20, warm_up_episodes=2, updates_per_episode=1))
    model: Any = build(agent, env=env, episode_steps=3, episodes=10, seed=0)
    model.learn(18)
    stored = model.replay_buffer.actions[:18, 0]
    assert np.array_equal(stored, np.stack(env.executed))
    assert np.abs(np.stack(env.proposed)).max() > 0.25  # some were changed


def test_the_replay_of_levels_holds_executed_levels() -> None:
    env = KnownLevel(np.zeros(3), steps=3)
    agent = small_agent("DQN", experience=Replay(episodes=20, warm_up_episodes=2, updates_per_episode=1))
    model: Any = build(agent, env=env, episode_steps=3, episodes=10, seed=0)
    model.learn(30)
    assert model.replay_buffer.actions[:30].ravel().tolist() == env.executed
    assert 4 in np.ravel(env.proposed)
    assert 4 not in env.executed


def test_proposed_actions_are_kept_as_well_where_they_were_changed() -> None:
    buffer = ExecutedActionReplayBuffer(8, OBSERVATION, BOX, keep_proposed=True)
    add(buffer, mark=0, executed=[0.2], asked=0.5, reward=1.0, done=False)
    add(buffer, mark=1, executed=[0.5], asked=0.5, reward=0.0, done=True)
    assert buffer.actions[: buffer.size()].ravel().tolist() == pytest.approx([0.2, 0.5, 0.5])
    assert buffer.observations[: buffer.size(), 0, 0].tolist() == [0, 0, 1]
    assert buffer.rewards[: buffer.size()].ravel().tolist() == [1, 1, 0]


def test_executed_actions_are_scaled_as_the_buffer_scales_actions() -> None:
    space = gymnasium.spaces.Box(np.array([0.0], np.float32), np.array([10.0], np.float32))
    buffer = ExecutedActionReplayBuffer(4, OBSERVATION, space)
    add(buffer, mark=0, executed=[7.5], reward=0.0, done=True)
    assert buffer.actions[0].item() == 0.5


def test_an_environment_that_hides_what_it_executed_is_refused() -> None:
    buffer = ExecutedActionReplayBuffer(4, OBSERVATION, BOX)
    one = np.zeros((1, 2), np.float32)
    with pytest.raises(ValueError, match="no 'executed_action'"):
        buffer.add(one, one, np.zeros((1, 1)), np.zeros(1), np.zeros(1, bool), [{}])


def test_an_executed_action_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1,\).*\(2,\)"):
        add(ExecutedActionReplayBuffer(4, OBSERVATION, BOX), mark=0, executed=[0.1, 0.2], reward=0.0, done=True)


def test_the_terminal_reward_is_copied_to_its_episode_only() -> None:
    buffer = TerminalRewardReplayBuffer(10, OBSERVATION, BOX)
    for mark, reward, done in [(0, 0.0, False), (1, 0.0, False), (2, 0.7, True), (3, 0.0, False), (4, -0.2, True)]:
        add(buffer, mark=mark, executed=[mark / 10], reward=reward, done=done)
    assert buffer.rewards[:5].ravel().tolist() == pytest.approx([0.7, 0.7, 0.7, -0.2, -0.2])
    assert buffer.observations[:5, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert buffer.next_observations[:5, 0, 0].tolist() == [1, 2, 3, 4, 5]
    assert buffer.actions[:5].ravel().tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert buffer.dones[:5].ravel().tolist() == [0, 0, 1, 0, 1]


def test_an_unfinished_episode_is_not_learned_from() -> None:
    buffer = TerminalRewardReplayBuffer(10, OBSERVATION, BOX)
    add(buffer, mark=0, executed=[0.0], reward=0.0, done=True)
    add(buffer, mark=1, executed=[0.0], reward=0.0, done=False)
    assert buffer.size() == 1
    buffer.reset()
    add(buffer, mark=5, executed=[0.0], reward=1.0, done=True)
    assert buffer.observations[: buffer.size(), 0, 0].tolist() == [5]


def test_parallel_episodes_of_different_lengths_are_refused() -> None:
    buffer = TerminalRewardReplayBuffer(10, OBSERVATION, BOX, n_envs=2)
    two = np.zeros((2, 2), np.float32)
    infos = [{"executed_action": np.zeros(1, np.float32)}] * 2
    with pytest.raises(ValueError, match="all parallel episodes end together"):
        buffer.add(two, two, np.zeros((2, 1)), np.zeros(2), np.array([True, False]), infos)


def test_the_baseline_is_the_moving_average_of_batch_means() -> None:
    buffer = TerminalRewardReplayBuffer(4, OBSERVATION, BOX, baseline_rate=0.5)
    add(buffer, mark=0, executed=[0.0], reward=0.8, done=True)
    assert buffer.sample(16).rewards.numpy() == pytest.approx(0.0, abs=1e-6)  # it begins as the first batch's mean
    assert buffer.baseline == pytest.approx(0.8)
    buffer.reset()
    add(buffer, mark=0, executed=[0.0], reward=0.4, done=True)
    assert buffer.sample(16).rewards.numpy() == pytest.approx(-0.2)  # 0.4 − (0.8 + 0.5·(0.4 − 0.8))
    assert buffer.baseline == pytest.approx(0.6)


def test_without_a_baseline_rewards_are_as_they_were() -> None:
    buffer = TerminalRewardReplayBuffer(4, OBSERVATION, BOX)
    add(buffer, mark=0, executed=[0.0], reward=0.8, done=True)
    assert buffer.sample(4).rewards.numpy() == pytest.approx(0.8)
