"""Every algorithm learns what can be known, repeatably, within exactly the episodes it is given."""

import random
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from autoprune.agent.agent_spec import ALGORITHMS, AgentSpec, Replay
from autoprune.agent.learn import Learned, learn
from autoprune.agent.sb3_model import build
from autoprune.agent.trained_policy import TrainedPolicy
from autoprune.evaluation.metered import EvaluationsSpent
from tests.agent.environments import KnownAnswer, environment_for, small_agent
from tests.sampling import covering

FAST = ("DQN", "PPO", "RecurrentPPO", "TD3")  # levels, rollouts, memory, replay


def run(agent: AgentSpec, env: KnownAnswer, *, episodes: int, seed: int = 0, **options: Any) -> Learned:
    options = {"on_metrics": lambda metrics, step: None} | options
    return learn(agent, env=env, episode_steps=env.steps, episodes=episodes, seed=seed, **options)


def play(env: KnownAnswer, learned: Learned) -> float:
    observation, _ = env.reset()
    over = False
    while not over:
        observation, reward, over, _, _ = env.step(learned.act(observation))
    return reward


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("algorithm", covering(sorted(ALGORITHMS), FAST))
def test_an_agent_learns_the_known_answer(algorithm: str, learns: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its updates switched off, the same agent does not know it after the same episodes."""
    if not learns:
        monkeypatch.setattr(ALGORITHMS[algorithm], "train", lambda *_, **__: None)
    env = environment_for(algorithm, steps=1)
    learned = run(small_agent(algorithm), env, episodes=40)
    assert np.mean(env.returns[:8]) < -0.1  # there was something to learn
    assert (play(env, learned) > -0.08) == learns


@pytest.mark.parametrize("learns", [True, False])
def test_an_agent_learns_an_episode_of_several_steps(learns: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not learns:
        monkeypatch.setattr(ALGORITHMS["PPO"], "train", lambda *_, **__: None)
    env = environment_for("PPO", steps=2)
    learned = run(small_agent("PPO"), env, episodes=64)
    assert np.mean(env.returns[:8]) < -0.1
    assert (play(env, learned) > -0.03) == learns


@pytest.mark.parametrize("algorithm", covering(sorted(ALGORITHMS), FAST))
def test_the_same_seed_proposes_the_same_actions(algorithm: str) -> None:
    first, again, other = (environment_for(algorithm, steps=2) for _ in range(3))
    np.random.seed(1)
    agent = small_agent(algorithm, updates=3)
    run(agent, first, episodes=12, seed=3)
    np.random.seed(2)  # what the process drew before does not matter
    torch.manual_seed(2)
    run(agent, again, episodes=12, seed=3)
    run(agent, other, episodes=12, seed=4)
    assert np.array_equal(first.proposed, again.proposed)
    assert not np.array_equal(first.proposed, other.proposed)


def test_global_randomness_is_left_as_it_was() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), float(torch.rand(()))

    def seed() -> None:
        random.seed(5), np.random.seed(5), torch.manual_seed(5)

    seed()
    expected = draw()
    seed()
    run(small_agent("DQN"), environment_for("DQN", steps=1), episodes=10)
    assert draw() == expected


@pytest.mark.parametrize("algorithm", ["PPO", "SAC"])
def test_the_environment_keeps_its_threads_and_updates_have_one(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[int]] = {"steps": set(), "updates": set()}

    class Watched(KnownAnswer):
        def step(self, action: Any) -> Any:
            threads["steps"].add(torch.get_num_threads())
            return super().step(action)

    train: Any = ALGORITHMS[algorithm].train  # type: ignore[attr-defined]

    def watched_train(*args: Any, **kwargs: Any) -> None:
        threads["updates"].add(torch.get_num_threads())
        train(*args, **kwargs)

    monkeypatch.setattr(ALGORITHMS[algorithm], "train", watched_train)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run(small_agent(algorithm), Watched(np.zeros(2), steps=1), episodes=16)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads == {"steps": {2}, "updates": {1}}


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_it_ends_after_exactly_its_episodes(algorithm: str) -> None:
    env = environment_for(algorithm, steps=3)
    learned = run(small_agent(algorithm, updates=1), env, episodes=11)  # no whole number of rollouts
    assert (learned.episodes, learned.steps, len(env.returns)) == (11, 33, 11)


def test_a_recurrent_policy_acts_by_what_it_saw_in_its_episode() -> None:
    policy = run(small_agent("RecurrentPPO"), environment_for("RecurrentPPO", steps=3), episodes=16).policy
    seen = np.array([1.0, 0.5, -1.0], np.float32)
    policy.begin()
    first, second = policy.act(seen), policy.act(seen)
    policy.begin()
    assert np.array_equal(policy.act(seen), first)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("algorithm", ["PPO", "SAC", "DQN"])
def test_stop_is_asked_before_a_step_and_ends_it_there(algorithm: str) -> None:
    env = environment_for(algorithm, steps=2)
    learned = run(small_agent(algorithm), env, episodes=20, stop=lambda: len(env.returns) == 9)
    assert (learned.episodes, learned.steps, len(env.proposed)) == (9, 18, 18)


def test_stop_before_the_first_step_gives_the_untrained_policy() -> None:
    env = environment_for("PPO", steps=1)
    learned = run(small_agent("PPO"), env, episodes=20, stop=lambda: True)
    assert (learned.episodes, env.proposed) == (0, [])
    assert env.action_space.contains(learned.act(env.reset()[0]))


@pytest.mark.parametrize("algorithm", ["A2C", "TD3"])
def test_spent_evaluations_end_it_cleanly(algorithm: str) -> None:
    env = KnownAnswer(np.array([0.2, 0.1]), steps=2, limit=9)
    learned = run(small_agent(algorithm), env, episodes=20)
    assert (learned.episodes, len(env.returns)) == (9, 9)


def test_other_exceptions_of_the_environment_are_not_swallowed() -> None:
    class Broken(KnownAnswer):
        def step(self, action: Any) -> Any:
            raise RuntimeError("the network is on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        run(small_agent("PPO"), Broken(np.zeros(1), steps=1), episodes=20)


def test_the_last_whole_rollout_is_learned_from() -> None:
    env = environment_for("PPO", steps=1)
    updates: list[float] = []
    run(
        small_agent("PPO"),
        env,
        episodes=16,
        stop=lambda: len(env.returns) == 16,
        on_metrics=lambda metrics, step: updates.append(metrics.get("train/n_updates", 0)),
    )
    assert max(updates) == 20  # two rollouts of 8 episodes, 10 epochs each


def test_the_policy_is_shown_after_every_update_but_the_last() -> None:
    env = environment_for("PPO", steps=2)
    shown: list[tuple[int, float]] = []

    def on_update(policy: TrainedPolicy) -> None:
        shown.append((len(env.returns), float(policy.act(np.zeros(3, np.float32))[0])))

    run(small_agent("PPO"), env, episodes=32, on_update=on_update)
    assert [episodes for episodes, _ in shown] == [8, 16, 24]
    assert len({action for _, action in shown}) == 3


def test_spent_evaluations_in_on_update_end_it_cleanly() -> None:
    def on_update(policy: TrainedPolicy) -> None:
        raise EvaluationsSpent

    env = environment_for("PPO", steps=1)
    assert run(small_agent("PPO"), env, episodes=32, on_update=on_update).episodes == 8


def test_looking_at_the_policy_changes_nothing() -> None:
    blind, watched = environment_for("TD3", steps=1), environment_for("TD3", steps=1)
    run(small_agent("TD3"), blind, episodes=12)
    run(small_agent("TD3"), watched, episodes=12, on_update=lambda policy: policy.act(np.zeros(3, np.float32)))
    assert np.array_equal(blind.proposed, watched.proposed)


def test_lengths_are_converted_from_episodes_to_steps() -> None:
    env = environment_for("SAC", steps=4)
    replay = Replay(episodes=10, warm_up_episodes=3, updates_per_episode=2)
    model: Any = build(small_agent("SAC", experience=replay), env=env, episode_steps=4, episodes=20, seed=0)
    assert (model.buffer_size, model.learning_starts, model.gradient_steps) == (40, 12, 2)
    model = build(small_agent("PPO"), env=env, episode_steps=4, episodes=20, seed=0)
    assert (model.n_steps, model.batch_size) == (32, 32)


@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "SAC", "TQC"])
def test_the_first_samples_are_as_wide_as_asked(algorithm: str) -> None:
    env = KnownAnswer(np.zeros(50), steps=1)
    model: Any = build(small_agent(algorithm, initial_std=0.1), env=env, episode_steps=1, episodes=40, seed=0)
    observation = env.reset()[0]
    actions = [model.predict(observation, deterministic=False)[0] for _ in range(40)]
    assert np.std(actions, axis=0).mean() == pytest.approx(0.1, rel=0.1)


def test_actor_and_critic_have_their_own_learning_rates() -> None:
    env = environment_for("DDPG", steps=1)
    agent = small_agent("DDPG", actor_learning_rate=1e-4, hyperparameters={"learning_rate": 1e-3, "batch_size": 8})
    model: Any = build(agent, env=env, episode_steps=1, episodes=40, seed=0)
    model.learn(10)
    assert model._n_updates > 0
    assert [group["lr"] for group in model.actor.optimizer.param_groups] == [1e-4]
    assert [group["lr"] for group in model.critic.optimizer.param_groups] == [1e-3]


def test_a_search_that_is_all_warm_up_is_refused() -> None:
    agent = small_agent("SAC", experience=Replay(episodes=10, warm_up_episodes=10))
    with pytest.raises(ValueError, match=r"10 episodes.*of 10.*warm_up_episodes"):
        run(agent, environment_for("SAC", steps=1), episodes=10)


def test_a_search_shorter_than_a_rollout_is_refused() -> None:
    with pytest.raises(ValueError, match=r"PPO.*8 episodes.*from 7"):
        run(small_agent("PPO"), environment_for("PPO", steps=1), episodes=7)


@pytest.mark.parametrize(("episodes", "steps"), [(0, 1), (10, 0)])
def test_learning_needs_episodes_and_steps(episodes: int, steps: int) -> None:
    env = environment_for("PPO", steps=1)
    with pytest.raises(ValueError, match="at least one episode of one step"):
        learn(
            small_agent("PPO"), env=env, episode_steps=steps, episodes=episodes, seed=0, on_metrics=lambda m, step: None
        )


def test_initial_std_is_refused_where_actions_are_levels() -> None:
    env = environment_for("DQN", steps=1)
    assert isinstance(env.action_space, gymnasium.spaces.Discrete)
    with pytest.raises(ValueError, match="initial_std"):
        run(small_agent("PPO"), env, episodes=20)
