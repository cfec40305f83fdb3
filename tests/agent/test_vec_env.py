"""Agents of Stable-Baselines3 learn in Gymnasium's vector environments, a whole rollout at a time."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3 import PPO

from autoprune.agent.agent_spec import AgentSpec
from autoprune.agent.learn import Learned, learn
from autoprune.agent.sb3_model import build
from autoprune.agent.trained_policy import TrainedPolicy
from autoprune.agent.vec_env import SynchronousVecEnv, vectorized
from autoprune.env.layerwise import LayerwiseVectorEnv
from autoprune.env.one_shot import OneShotVectorEnv
from autoprune.evaluation.metered import EvaluationsSpent
from tests.agent.environments import KnownAnswer, small_agent
from tests.env.plan_environments import RecordedObjective, parts

BEST = np.array([-0.4, 0.4])


def known_answers(number: int, *, steps: int = 2, mode: AutoresetMode = AutoresetMode.SAME_STEP) -> Any:
    """That many known-answer environments in lockstep; `envs` are they."""
    return SyncVectorEnv([lambda: KnownAnswer(BEST, steps=steps) for _ in range(number)], autoreset_mode=mode)


def returns(env: Any) -> list[float]:
    """In the order in which they were earned."""
    return np.array([each.returns for each in env.envs]).T.ravel().tolist()


def run(agent: AgentSpec, env: Any, *, episodes: int, steps: int = 2, **options: Any) -> Learned:
    options = {"on_metrics": lambda metrics, step: None, "seed": 0} | options
    return learn(agent, env=env, episode_steps=steps, episodes=episodes, **options)


@pytest.mark.parametrize("algorithm", ["PPO", "A2C"])
def test_an_agent_learns_in_all_of_them_at_once(algorithm: str) -> None:
    agent = small_agent(algorithm)
    env = known_answers(agent.parallel_episodes)
    episodes = {"PPO": 64, "A2C": 96}[algorithm]
    learned = run(agent, env, episodes=episodes)
    earned = returns(env)
    assert (learned.episodes, learned.steps, len(earned)) == (episodes, 2 * episodes, episodes)
    assert np.mean(earned[:8]) < -0.1
    assert np.mean(earned[-8:]) > np.mean(earned[:8]) + 0.05


def test_as_many_environments_as_a_rollout_has_episodes_or_fewer() -> None:
    for number, steps_each in [(8, 2), (4, 4), (1, 16)]:
        model: Any = build(
            small_agent("PPO"), env=vectorized(known_answers(number)), episode_steps=2, episodes=20, seed=0
        )
        assert (model.n_envs, model.n_steps, model.batch_size) == (number, steps_each, 16)
    with pytest.raises(ValueError, match="3 environments cannot play rollouts of 8 episodes in whole batches"):
        build(small_agent("PPO"), env=vectorized(known_answers(3)), episode_steps=2, episodes=20, seed=0)


def test_agents_that_learn_after_each_episode_have_one_environment() -> None:
    assert small_agent("SAC").parallel_episodes == 1
    with pytest.raises(ValueError, match=r"SAC.*1 episodes.*got 2"):
        run(small_agent("SAC"), known_answers(2), episodes=20)


def test_one_environment_in_a_vector_is_that_environment_alone() -> None:
    vector, alone = known_answers(1), KnownAnswer(BEST, steps=2)
    run(small_agent("PPO"), vector, episodes=24)
    run(small_agent("PPO"), alone, episodes=24)
    assert vector.envs[0].returns == alone.returns


def test_the_seed_reaches_the_environments() -> None:
    env = known_answers(4)
    run(small_agent("A2C"), env, episodes=8, seed=11)
    assert [each.reset_seeds[0] for each in env.envs] == [11, 12, 13, 14]


def test_a_batch_is_begun_where_fewer_episodes_are_left() -> None:
    env = known_answers(8)
    assert run(small_agent("PPO"), env, episodes=11).episodes == len(returns(env)) == 16


def test_metrics_count_the_steps_of_all() -> None:
    seen: dict[int, float] = {}
    run(
        small_agent("PPO"),
        known_answers(8),
        episodes=16,
        on_metrics=lambda metrics, step: seen.update({step: metrics.get("rollout/ep_rew_mean", -1.0)}),
    )
    assert list(seen) == [16, 32]
    assert all(value < 0 for value in seen.values())


@pytest.mark.parametrize(("kind", "steps"), [(LayerwiseVectorEnv, 6), (OneShotVectorEnv, 1)])
def test_every_rollout_is_one_call_of_the_objective(kind: Any, steps: int) -> None:
    agent = small_agent("PPO")
    made = parts("digits_net") | {"evaluate": RecordedObjective(limit=29)}
    env = kind(num_envs=agent.parallel_episodes, **made)
    shown: list[TrainedPolicy] = []
    learned = run(agent, env, episodes=29, steps=steps, on_update=shown.append)
    assert [len(call) for call in made["evaluate"].calls] == [8, 8, 8, 8]  # of the last one 5 were left
    assert (learned.episodes, learned.steps, len(shown)) == (24, 32 * steps - 8, 3)  # the last step had no answer


def test_stable_baselines_trains_on_it_directly() -> None:
    made = parts("digits_net")
    env = SynchronousVecEnv(LayerwiseVectorEnv(num_envs=6, **made))
    model = PPO("MlpPolicy", env, n_steps=6, batch_size=36, n_epochs=1, seed=0, device="cpu")
    model.learn(72)
    assert [len(call) for call in made["evaluate"].calls] == [6, 6]


def test_steps_say_what_stable_baselines_asks_for() -> None:
    env = SynchronousVecEnv(known_answers(2))
    env.seed(5)
    first = env.reset()
    actions = np.array([[0.3], [7.0]], np.float32)
    observations, rewards, dones, infos = env.step(actions)
    assert not dones.any()
    assert [info["executed_action"].item() for info in infos] == pytest.approx([0.3, 1.0])
    assert set(infos[0]) == {"executed_action"}
    again, rewards, dones, infos = env.step(actions)
    assert dones.all()
    assert rewards.max() < 0
    assert np.array_equal(again, first)  # the next episodes have begun
    assert not np.array_equal(infos[0]["terminal_observation"], observations[0])
    assert [info["TimeLimit.truncated"] for info in infos] == [False, False]
    assert [info["executed_action"].item() for info in infos] == pytest.approx([0.3, 1.0])


def test_what_lockstep_has_and_has_not() -> None:
    env = SynchronousVecEnv(known_answers(3))
    assert env.get_attr("num_envs") == [3, 3, 3]
    assert env.env_is_wrapped(gymnasium.Wrapper, indices=[1]) == [False]
    assert not env.has_attr("nothing")
    with pytest.raises(NotImplementedError, match="'best' of their own to set"):
        env.set_attr("best", 1)
    with pytest.raises(NotImplementedError, match="'execute'"):
        env.env_method("execute", 1)
    env.close()


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_other_ways_to_begin_again_are_refused(mode: AutoresetMode) -> None:
    with pytest.raises(ValueError, match="must begin again in the step that ends them"):
        SynchronousVecEnv(known_answers(2, mode=mode))


def test_episodes_of_different_lengths_are_refused() -> None:
    makers = [lambda best=best: KnownAnswer(best, steps=len(best)) for best in (BEST[:1], BEST[:1], BEST)]
    env = SynchronousVecEnv(SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP))
    env.reset()
    with pytest.raises(ValueError, match="must end together, but only 2 of 3 did"):
        env.step(np.zeros((3, 1), np.float32))


def test_spent_evaluations_of_the_environments_end_it() -> None:
    class Spent(LayerwiseVectorEnv):
        def step(self, actions: Any) -> Any:
            raise EvaluationsSpent

    learned = run(small_agent("PPO"), Spent(num_envs=8, **parts()), episodes=16)
    assert (learned.episodes, learned.steps) == (0, 0)
