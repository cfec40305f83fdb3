"""Many episodes in lockstep are what each would be alone, and their plans reach the objective as one batch."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import DictInfoToList, NormalizeReward, RecordEpisodeStatistics
from hypothesis import given
from hypothesis import strategies as st

import autoprune  # noqa: F401  registers the environments
from autoprune.env.layerwise import LayerwiseVectorEnv
from autoprune.env.one_shot import OneShotVectorEnv
from autoprune.env.plan_edits import EditVectorEnv
from tests.cost.projectors import structure_of
from tests.env.plan_environments import any_parts, assert_lockstep, parts, single
from tests.tasks import tiny_task


@given(st.data())
def test_layerwise_episodes_in_lockstep_are_those_alone(data: st.DataObject) -> None:
    made, episodes = data.draw(any_parts()), data.draw(st.integers(1, 4))
    size = (len(made["structure"].groups), episodes, 1)
    actions = np.random.default_rng(data.draw(st.integers(0, 99))).normal(0, 0.8, size).astype(np.float32)
    assert_lockstep(LayerwiseVectorEnv(num_envs=episodes, **made), single(LayerwiseVectorEnv, **made), actions)


@given(st.data())
def test_one_shot_episodes_in_lockstep_are_those_alone(data: st.DataObject) -> None:
    made, episodes = data.draw(any_parts()), data.draw(st.integers(1, 3))
    groups = len(made["structure"].groups)
    if data.draw(st.booleans()):
        made |= {"prior": made["projector"].project(np.ones(groups)), "max_log_correction": 1.5}
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    actions = rng.normal(0, 0.8, (1, episodes, groups)).astype(np.float32)
    assert_lockstep(OneShotVectorEnv(num_envs=episodes, **made), single(OneShotVectorEnv, **made), actions)


def play(env: Any, batches: int = 1) -> dict[str, Any]:
    """Random actions; the last infos."""
    env.action_space.seed(0)
    env.reset(seed=0)
    infos: dict[str, Any] = {}
    for _ in range(batches):
        ended = np.zeros(1, bool)
        while not ended.any():
            _, _, ended, _, infos = env.step(env.action_space.sample())
    return infos


@pytest.mark.parametrize("kind", [LayerwiseVectorEnv, OneShotVectorEnv])
def test_a_batch_of_episodes_is_one_call_of_the_objective(kind: Any) -> None:
    made = parts("digits_net")
    infos = play(kind(num_envs=6, **made), batches=2)
    assert [len(call) for call in made["evaluate"].calls] == [6, 6]
    assert infos["plan"].tolist() == made["evaluate"].calls[-1]
    assert [outcome.plan for outcome in infos["outcome"]] == infos["plan"].tolist()


@pytest.mark.parametrize("kind", [LayerwiseVectorEnv, OneShotVectorEnv])
def test_spaces_and_shapes_are_as_gymnasium_has_them(kind: Any) -> None:
    env = kind(num_envs=5, **parts("digits_net"))
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observations, infos = env.reset(seed=3)
    assert (env.np_random_seed, infos) == (3, {})
    env.action_space.seed(0)
    for _ in range(7):
        assert observations in env.observation_space
        assert all(observation in env.single_observation_space for observation in observations)
        observations, rewards, ended, truncated, infos = env.step(env.action_space.sample())
        assert rewards.shape == ended.shape == truncated.shape == (5,)
        assert (rewards.dtype, ended.dtype, truncated.dtype) == (np.float64, bool, bool)
        assert infos["executed_action"] in env.action_space


@pytest.mark.parametrize("kind", [LayerwiseVectorEnv, OneShotVectorEnv])
def test_what_a_step_handed_out_is_not_changed_by_the_next(kind: Any) -> None:
    env = kind(num_envs=3, **parts())
    env.action_space.seed(0)
    before = [env.reset()[0], *env.step(env.action_space.sample())[:4]]
    copies = [array.copy() for array in before]
    env.step(env.action_space.sample())
    assert all(np.array_equal(a, b) for a, b in zip(before, copies, strict=True))


def test_gymnasiums_wrappers_take_it() -> None:
    groups = len(structure_of("digits_net").groups)
    env = LayerwiseVectorEnv(num_envs=4, **parts("digits_net"))
    recorded = RecordEpisodeStatistics(env)
    infos = play(recorded, batches=3)
    assert recorded.episode_count == 12
    assert infos["episode"]["l"].tolist() == [groups] * 4
    assert infos["episode"]["r"].tolist() == [outcome.reward for outcome in infos["outcome"]]
    listed = play(DictInfoToList(NormalizeReward(env)))
    assert [info["plan"] for info in listed] == [info["final_info"]["plan"] for info in listed]  # type: ignore[index]


@pytest.mark.parametrize("name", ["Layerwise-v0", "OneShot-v0", "Edit-v0"])
def test_make_vec_gives_the_batched_one(name: str) -> None:
    env = gymnasium.make_vec(f"autoprune/{name}", num_envs=3, task=tiny_task(), budget="params:0.5")
    infos = play(env)
    kinds = {"Layerwise-v0": LayerwiseVectorEnv, "OneShot-v0": OneShotVectorEnv, "Edit-v0": EditVectorEnv}
    assert type(env) is kinds[name]
    assert all(outcome.feasible for outcome in infos["outcome"])
    assert len(infos["plan"]) == 3


def test_a_part_of_the_episodes_cannot_be_reset() -> None:
    env = LayerwiseVectorEnv(num_envs=2, **parts())
    with pytest.raises(ValueError, match="episodes in lockstep begin together"):
        env.reset(options={"reset_mask": np.array([True, False])})
    env.reset(options={"reset_mask": np.array([True, True])})
