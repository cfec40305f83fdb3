"""What all environments do alike: when episodes begin again, what is rendered, which actions are refused."""

from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import DictInfoToList, NormalizeReward, RecordEpisodeStatistics
from hypothesis import given
from hypothesis import strategies as st

import autoprune  # noqa: F401  registers the environments
from autoprune.env.episodes import SingleEpisode
from autoprune.env.layerwise import LayerwiseVectorEnv
from autoprune.env.one_shot import OneShotVectorEnv
from autoprune.env.plan_edits import EditVectorEnv
from autoprune.evaluation.metered import EvaluationsSpent
from tests.cost.projectors import structure_of
from tests.env.plan_environments import RecordedObjective, any_parts, assert_lockstep, parts, single
from tests.tasks import tiny_task

KINDS = [LayerwiseVectorEnv, OneShotVectorEnv]


def episode(env: Any, actions: Any) -> tuple[Any, ...]:
    """The last step of an episode in which every action is the same."""
    env.reset(seed=0)
    while True:
        step: tuple[Any, ...] = env.step(actions)
        if step[2].all():
            return step


@pytest.mark.parametrize("kind", KINDS)
def test_episodes_begin_again_when_the_mode_says(kind: Any) -> None:
    """In the step that ends them, in the one after, or by reset alone; what they end with is the same."""
    made = parts("digits_net")
    envs = {mode: kind(num_envs=2, autoreset_mode=mode, **made) for mode in AutoresetMode}
    first = envs[AutoresetMode.DISABLED].reset(seed=0)[0]
    actions = np.zeros(envs[AutoresetMode.DISABLED].action_space.shape, np.float32)
    ends = {mode: episode(env, actions) for mode, env in envs.items()}
    modes = (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED)
    same, following, disabled = (ends[mode] for mode in modes)
    assert np.array_equal(same[0], first), "the next episodes' beginning"
    assert np.array_equal(np.stack(list(same[4]["final_obs"])), following[0])
    assert np.array_equal(following[0], disabled[0])
    assert same[1].tolist() == following[1].tolist() == disabled[1].tolist()
    assert "final_obs" not in following[4]
    begun = envs[AutoresetMode.NEXT_STEP].step(actions)
    assert np.array_equal(begun[0], first)
    assert (begun[1].tolist(), begun[2].any(), begun[3].any(), begun[4]) == ([0.0, 0.0], False, False, {})
    assert len(made["evaluate"].calls) == 3, "which evaluates nothing"
    assert episode(envs[AutoresetMode.NEXT_STEP], actions)[1].tolist() == following[1].tolist()
    with pytest.raises(gymnasium.error.ResetNeeded):
        envs[AutoresetMode.DISABLED].step(actions)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_rendered_is_the_plan(kind: Any) -> None:
    made = parts("digits_net")
    env = SingleEpisode(partial(kind, render_mode="ansi", **made))
    env.reset(seed=0)
    over, info = False, dict[str, Any]()
    while not over:
        _, _, over, _, info = env.step(np.full(env.action_space.shape, 0.1, np.float32))
    text = str(env.render())
    for group, kept in zip(made["structure"].groups, info["plan"].kept, strict=True):
        assert f"{group.name}: {kept} of {group.units} {group.granularity}s" in text
    assert f"budget {made['projector'].budget.relative:.3f}" in text
    assert f"reward: {info['outcome'].reward:.4f}" in text
    assert SingleEpisode(partial(kind, **made)).render() is None
    with pytest.raises(ValueError, match=r"render_mode.*'ansi'.*'rgb_array'.*'human'"):
        SingleEpisode(partial(kind, render_mode="human", **made))


def test_groups_that_are_not_decided_are_rendered_so() -> None:
    env = SingleEpisode(partial(LayerwiseVectorEnv, render_mode="ansi", **parts("digits_net")))
    env.reset()
    env.step(np.zeros(1, np.float32))
    decided = [line.split(": ")[1].split(" of ")[0] != "-" for line in str(env.render()).splitlines()]
    assert decided == [True] + [False] * (len(decided) - 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda actions: actions[:1], r"must have the shape \("),
        (lambda actions: actions[..., None], r"must have the shape \("),
        (lambda actions: actions * np.nan, "must be finite numbers"),
        (lambda actions: actions - np.inf, "must be finite numbers"),
        (lambda actions: "keep all", "must be numbers of shape"),
        (lambda actions: None, "must be (numbers|finite)|must have the shape"),
    ],
)
def test_what_is_no_action_is_refused_and_costs_nothing(kind: Any, change: Any, rule: str) -> None:
    made = parts("digits_net")
    env = kind(num_envs=2, **made)
    env.reset()
    good = np.zeros(env.action_space.shape, np.float32)
    with pytest.raises(ValueError, match=f"actions {rule}"):
        env.step(change(good))
    assert made["evaluate"].calls == []
    env.step(good)


def test_levels_outside_the_space_are_refused() -> None:
    env = LayerwiseVectorEnv(num_envs=2, levels=4, **parts("digits_net"))
    env.reset()
    for actions in ([0, 4], [-1, 0], [0.5, 1]):
        with pytest.raises(ValueError, match=r"actions.*0 to 3"):
            env.step(np.array(actions))


def test_where_evaluating_raises_episodes_stay_at_their_end() -> None:
    env = OneShotVectorEnv(num_envs=2, **parts() | {"evaluate": RecordedObjective(limit=2)})
    env.reset()
    actions = np.zeros(env.action_space.shape, np.float32)
    env.step(actions)
    with pytest.raises(EvaluationsSpent):
        env.step(actions)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(actions)


# Many episodes in lockstep are what each would be alone, and their plans reach the objective as one batch
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
