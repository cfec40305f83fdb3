"""The replay holds what was executed; terminal rewards reach every transition of their episode and no other."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from autoprune.agent.agent_spec import Replay
from autoprune.agent.learn import learn
from autoprune.agent.metrics import logger
from autoprune.agent.replay import DEEPEST, ExecutedActionReplayBuffer, TerminalRewardReplayBuffer
from autoprune.agent.sb3_model import build, seed_replay
from autoprune.agent.vec_env import vectorized
from tests.agent.critic_guided import BEST, Coarse, critic_guided, environments, replay_seed
from tests.agent.environments import KnownAnswer, KnownLevel, environment_for, small_agent
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


# What agents learn from: rewards that are added up over steps, or scaled, of one episode or of many at once
def sampled(buffer: ExecutedActionReplayBuffer, rows: int) -> dict[str, list[float]]:
    """What samples of those rows say, of all parallel episodes together."""
    found: dict[float, tuple[float, ...]] = {}
    for _ in range(20):
        batch: Any = buffer.sample(64)
        for seen, *said in zip(
            batch.observations[:, 0], batch.rewards, batch.next_observations[:, 0], batch.dones, batch.discounts,
            strict=True,
        ):  # fmt: skip
            found[round(float(seen), 3)] = tuple(round(float(value), 4) for value in said)
    assert len(found) == rows
    return {str(seen): list(found[seen]) for seen in sorted(found)}


def test_n_step_samples_add_up_discounted_rewards_and_stop_at_the_episodes_end() -> None:
    buffer = ExecutedActionReplayBuffer(20, OBSERVATION, BOX, n_steps=3, gamma=0.5)
    for mark, reward, done in [(0, 1.0, False), (1, 2.0, False), (2, 4.0, False), (3, 8.0, True), (4, 16.0, False)]:
        add(buffer, mark=mark, executed=[0.0], reward=reward, done=done)
    assert sampled(buffer, 5) == {  # rewards, what is seen next, whether it is over, discount of what comes then
        "0.0": [1 + 2 / 2 + 4 / 4, 3, 0, 0.125],
        "1.0": [2 + 4 / 2 + 8 / 4, 4, 1, 0.125],
        "2.0": [4 + 8 / 2, 4, 1, 0.25],
        "3.0": [8, 4, 1, 0.5],
        "4.0": [16, 5, 0, 0.5],
    }


def test_n_step_samples_of_parallel_episodes_stay_apart() -> None:
    buffer = ExecutedActionReplayBuffer(40, OBSERVATION, BOX, n_envs=2, n_steps=2)
    for step, rewards in enumerate([(1.0, 10.0), (2.0, 20.0), (4.0, 40.0)]):
        seen = np.array([[step, 0], [step + 0.5, 0]], np.float32)
        infos = [{"executed_action": np.zeros(1, np.float32)}] * 2
        done = np.full(2, step == 2)
        buffer.add(seen, seen + 1, np.zeros((2, 1), np.float32), np.array(rewards, np.float32), done, infos)
    assert {seen: said[0] for seen, said in sampled(buffer, 6).items()} == {
        "0.0": 3, "0.5": 30, "1.0": 6, "1.5": 60, "2.0": 4, "2.5": 40,
    }  # fmt: skip


@pytest.mark.parametrize("algorithm", ["CrossQ", "DDPG", "DQN", "SAC", "TD3", "TQC"])
def test_agents_learn_from_n_step_returns(algorithm: str) -> None:
    env: KnownAnswer = environment_for(algorithm, steps=3)
    agent = small_agent(algorithm, experience=Replay(40, warm_up_episodes=2, updates_per_episode=2, n_steps=3))
    model: Any = build(agent, env=env, episode_steps=3, episodes=10, seed=0)
    model.learn(18)
    assert model.replay_buffer.n_steps == 3
    assert model.replay_buffer.gamma == model.gamma == 1
    batch = model.replay_buffer.sample(50)  # of an episode that is over, every step has its return
    assert np.isin(np.round(batch.rewards.numpy().ravel(), 4), np.round(np.array(env.returns, np.float32), 4)).all()
    assert batch.dones.all()


def test_standardised_rewards_are_deviations_from_the_best() -> None:
    buffer = ExecutedActionReplayBuffer(20, OBSERVATION, BOX, standardised=True)
    rewards = [-4.0, -3.0, -2.0, -1.0]
    for mark, reward in enumerate(rewards):
        add(buffer, mark=mark, executed=[0.0], reward=reward, done=True)
    said = sampled(buffer, 4)
    wanted = [(reward + 1) / np.std(rewards) for reward in rewards]
    assert [each[0] for each in said.values()] == pytest.approx(wanted, abs=1e-3)
    assert buffer.rewards[:4].ravel().tolist() == rewards, "they are kept as they were"


def test_standardised_rewards_have_no_unit_and_a_floor() -> None:
    said = []
    for unit in (1.0, 1000.0):
        buffer = ExecutedActionReplayBuffer(40, OBSERVATION, BOX, standardised=True)
        for mark in range(30):
            add(buffer, mark=mark, executed=[0.0], reward=-unit * (1000.0 if mark == 29 else 0.1 * mark), done=True)
        said.append([each[0] for each in sampled(buffer, 30).values()])
    assert said[0] == pytest.approx(said[1], abs=1e-3)
    assert min(said[0]) == -DEEPEST
    assert max(said[0]) == 0


def test_equal_rewards_are_all_the_best() -> None:
    for reward in (0.0, -2.0, 3.0):
        buffer = ExecutedActionReplayBuffer(20, OBSERVATION, BOX, standardised=True)
        for mark in range(5):
            add(buffer, mark=mark, executed=[0.0], reward=reward, done=True)
        assert {each[0] for each in sampled(buffer, 5).values()} == {0.0}


def test_what_was_known_before_moves_no_scale() -> None:
    """The dense network, say, which no agent can have executed, is better than the best by a bounded amount."""
    buffer = ExecutedActionReplayBuffer(20, OBSERVATION, BOX, standardised=True)
    for mark, reward in enumerate([100.0, -100.0, -2.0, -1.0]):
        add(buffer, mark=mark, executed=[0.0], reward=reward, done=True)
    buffer.seeded = 2
    assert [each[0] for each in sampled(buffer, 4).values()] == [DEEPEST, -DEEPEST, -2.0, 0.0]


@pytest.mark.parametrize(("algorithm", "steps"), [("SAC", 1), ("TD3", 3), ("TQC", 2)])
def test_parallel_episodes_are_acted_in_at_once_and_all_learned_from(algorithm: str, steps: int) -> None:
    makers = [lambda: KnownAnswer(np.zeros(2 * steps), steps=steps, bound=0.25) for _ in range(4)]
    env = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    experience = Replay(40, warm_up_episodes=4, updates_per_episode=3, parallel=4)
    agent = small_agent(algorithm, experience=experience, noise=None)
    updates: list[float] = []
    learned = learn(
        agent, env=env, episode_steps=steps, episodes=16, seed=0,
        on_metrics=lambda metrics, step: updates.append(metrics.get("train/n_updates", 0)),
    )  # fmt: skip
    assert (learned.episodes, learned.steps) == (16, 16 * steps)
    assert [len(each.returns) for each in env.envs] == [4] * 4  # type: ignore[attr-defined]
    assert max(updates) == 3 * 12, "so many for each episode, whatever is done at once"


def test_what_contradicts_is_refused() -> None:
    with pytest.raises(ValueError, match="keep_proposed"):
        ExecutedActionReplayBuffer(4, OBSERVATION, BOX, keep_proposed=True, n_steps=2)
    with pytest.raises(ValueError, match="copy_terminal_reward needs n_steps=1"):
        TerminalRewardReplayBuffer(4, OBSERVATION, BOX, n_steps=2)
    agent = small_agent("SAC", experience=Replay(40, 0, standardised=True))
    with pytest.raises(ValueError, match=r"agent.env.mode=one_shot"):
        build(agent, env=KnownAnswer(np.zeros(4), steps=2), episode_steps=2, episodes=10, seed=0)


def test_shifted_samples_stay_in_the_box_and_differ_by_one_number() -> None:
    space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    replay = ExecutedActionReplayBuffer(64, gymnasium.spaces.Box(-1, 1, (1,), np.float32), space, shifted=True)
    rng = np.random.default_rng(0)
    stored = rng.uniform(-0.6, 0.6, (40, 3)).astype(np.float32)
    for action in stored:
        seen = np.zeros((1, 1), np.float32)
        replay.add(seen, seen, action[None], np.ones(1), np.ones(1, bool), [{"executed_action": action}])
    replay.seeded = 10
    np.random.seed(0)
    moved = 0
    for action in replay.sample(500).actions.numpy():
        assert np.abs(action).max() <= 1 + 1e-6
        apart = (action - stored).std(axis=1)
        row = int(apart.argmin())
        assert apart[row] < 1e-6
        moved += bool(np.abs(action - stored[row]).max() > 1e-6)
        assert row >= 10 or np.allclose(action, stored[row], atol=1e-6)
    assert 100 < moved < 300


# What is known before an agent acts is what its replay begins with
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
