"""What all environments do alike: when episodes begin again, what is rendered, which actions are refused."""

from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from autoprune.env.episodes import SingleEpisode
from autoprune.env.layerwise import LayerwiseVectorEnv
from autoprune.env.one_shot import OneShotVectorEnv
from autoprune.evaluation.metered import EvaluationsSpent
from tests.env.plan_environments import RecordedObjective, parts

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
