"""Edits: a few groups change, the budget stays filled, and episodes begin at the best plan so far."""

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoprune.cost.projection import Projector, Rounding
from autoprune.env.episodes import SingleEpisode
from autoprune.env.plan_edits import Editing, EditVectorEnv
from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.problem.group_features import GROUP_FEATURES
from tests.env.plan_environments import RecordedObjective, outcome_of, parts
from tests.env.plan_environments import single as alone_in
from tests.search.toys import filled_on, structures

Actions = NDArray[np.float32]


def editing(
    made: dict[str, Any], *, edits: int = 2, max_log_correction: float = 1.0, length: int = 1, **changes: Any
) -> Editing:
    """From the uniform plan."""
    structure, projector = made["structure"], made["projector"]
    start = outcome_of(structure.plan(projector.project(np.ones(len(structure.groups)))))
    edits = min(edits, len(structure.groups))
    return Editing(
        structure,
        projector,
        replace(start, **changes),
        edits=edits,
        max_log_correction=max_log_correction,
        length=length,
    )


def single(made: dict[str, Any], **options: Any) -> SingleEpisode:
    return alone_in(EditVectorEnv, editing(made, **options), evaluate=made["evaluate"], features=made["features"])


def many(made: dict[str, Any], episodes: int, **options: Any) -> EditVectorEnv:
    shared = editing(made, **options)
    return EditVectorEnv(shared, num_envs=episodes, evaluate=made["evaluate"], features=made["features"])


@st.composite
def any_made(draw: st.DrawFn) -> dict[str, Any]:
    """Structures of several kinds of levels, among them none at all, and filled or random costs."""
    structure, projector = draw(structures())
    features = np.random.default_rng(0).uniform(-1, 5, (len(structure.groups), len(GROUP_FEATURES)))
    return {"structure": structure, "projector": projector, "evaluate": RecordedObjective(), "features": features}


def random_actions(seed: int, *size: int) -> Actions:
    return np.random.default_rng(seed).normal(0, 0.8, size).astype(np.float32)


def test_shapes_are_as_gymnasium_has_them() -> None:
    env = many(parts("digits_net"), 4, length=2)
    observations, infos = env.reset(seed=3)
    assert (env.np_random_seed, infos) == (3, {})
    env.action_space.seed(0)
    for step in range(5):
        assert observations in env.observation_space
        assert all(observation in env.single_observation_space for observation in observations)
        observations, rewards, ended, truncated, infos = env.step(env.action_space.sample())
        assert rewards.shape == ended.shape == truncated.shape == (4,)
        assert ended.tolist() == [step % 2 == 1] * 4
        assert not truncated.any()
        assert infos["executed_action"] in env.action_space
        assert ("final_obs" in infos) == ended.all()


@given(any_made(), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_one_environment_in_a_vector_is_that_environment_alone(
    made: dict[str, Any], edits: int, length: int, seed: int
) -> None:
    alone, vector = single(made, edits=edits, length=length), many(made, 1, edits=edits, length=length)
    seen, _ = alone.reset(seed=0)
    assert np.array_equal(vector.reset(seed=0)[0], seen[None])
    for action in random_actions(seed, 2 * length, len(made["structure"].groups)):
        seen, reward, over, truncated, info = alone.step(action)
        following, rewards, ended, cut, infos = vector.step(action[None])
        assert (rewards.tolist(), ended.tolist(), cut.tolist()) == ([reward], [over], [truncated])
        assert np.array_equal((infos["final_obs"] if over else following)[0], seen)
        assert np.array_equal(infos["executed_action"][0], info["executed_action"])
        assert infos["plan"][0] == info["plan"] == info["outcome"].plan
        if over:
            assert np.array_equal(alone.reset()[0], following[0])


@given(any_made(), st.integers(0, 99))
def test_an_action_of_zeros_keeps_the_plan(made: dict[str, Any], seed: int) -> None:
    env, groups = single(made, length=4), len(made["structure"].groups)
    env.step(random_actions(seed, groups))
    _, _, _, _, before = env.step(random_actions(seed + 1, groups))
    _, reward, _, _, after = env.step(np.zeros(groups, np.float32))
    assert after["plan"] == before["plan"]
    assert reward == 0
    kept = np.array(after["plan"].kept)
    assert np.abs(after["executed_action"][kept > 0]).max(initial=0) < 1e-6


@given(any_made(), st.integers(1, 4), st.integers(0, 99), st.booleans())
def test_at_most_so_many_groups_are_wished_to_change(
    made: dict[str, Any], edits: int, seed: int, clipped: bool
) -> None:
    """Before the budget is restored: where wishes are only rounded, no other group moves. Beyond 1, all are alike."""
    groups = len(made["structure"].groups)
    rounding = Rounding(made["structure"], made["projector"].budget)
    rule = editing({**made, "projector": rounding}, edits=edits, max_log_correction=3.0)
    actions = random_actions(seed, 5, groups) * (100 if clipped else 1)
    start = np.tile(np.array(rule.start.plan.kept), (5, 1))
    kept, _ = rule.edited(start, actions)
    changed = kept != start
    assert changed.sum(axis=1).max() <= edits
    if not clipped:
        largest = np.argsort(-np.abs(np.clip(actions, -1, 1)), axis=1, kind="stable")[:, :edits]
        assert all(set(np.flatnonzero(row)) <= set(few) for row, few in zip(changed, largest.tolist(), strict=True))


@given(any_made(), st.integers(1, 4), st.integers(1, 3), st.integers(0, 99))
def test_the_budget_is_met_and_filled_after_every_edit(
    made: dict[str, Any], edits: int, length: int, seed: int
) -> None:
    env = many(made, 2, edits=edits, length=length, max_log_correction=2.0)
    for actions in random_actions(seed, 2 * length, 2, len(made["structure"].groups)):
        infos = env.step(actions)[4]
        assert all(filled_on(made["projector"], plan.kept) for plan in infos["plan"])


@given(any_made(), st.integers(1, 4), st.integers(0, 99), st.sampled_from([0.0, 1.0, -3.0]))
def test_a_return_is_what_an_episode_gained_over_its_beginning(
    made: dict[str, Any], length: int, seed: int, base: float
) -> None:
    env = single(made, length=length, reward=base)
    for episode in range(3):
        env.reset()
        begun, total, info = env.episodes.editing.best.reward, 0.0, {}
        for action in random_actions(seed + episode, length, len(made["structure"].groups)):
            _, reward, over, _, info = env.step(action)
            total += reward
        assert over
        assert total == pytest.approx((info["outcome"].reward - begun) / (abs(base) or 1.0), abs=1e-9)


@given(any_made(), st.integers(1, 3), st.integers(0, 99))
def test_episodes_begin_at_the_best_plan_so_far(made: dict[str, Any], length: int, seed: int) -> None:
    env, structure = many(made, 3, length=length), made["structure"]
    outcomes = [env.editing.start]
    for actions in random_actions(seed, 3 * length, 3, len(structure.groups)):
        seen, _, ended, _, infos = env.step(actions)
        outcomes += infos["outcome"].tolist()
        best = max(outcomes, key=lambda outcome: outcome.reward)
        assert env.editing.best.reward == best.reward
        if ended.all():
            density = np.array(env.editing.best.plan.kept) / structure.units
            shown = seen[:, :-1].reshape(3, len(structure.groups), -1)
            assert shown[..., -1] == pytest.approx(np.tile(density, (3, 1)), abs=1e-6)
            assert shown[..., :-1] == pytest.approx(np.tile(made["features"], (3, 1, 1)), abs=1e-5)


@pytest.mark.parametrize("flaw", [{"feasible": False}, {"whole": False}])
def test_what_exceeds_the_budget_or_was_not_judged_whole_is_not_the_best(flaw: dict[str, Any]) -> None:
    made = parts("digits_net")
    rule = editing(made)
    better = replace(rule.start, reward=rule.start.reward + 1)
    gains = rule.gains([replace(better, **flaw)], np.array([rule.start.reward]))
    assert gains.tolist() == pytest.approx([1 / abs(rule.start.reward)])
    assert rule.best is rule.start
    rule.gains([better], np.array([0.0]))
    assert rule.best is better


def test_environments_of_one_search_share_the_best_plan() -> None:
    made = parts("digits_net")
    shared = editing(made)
    one = alone_in(EditVectorEnv, shared, evaluate=made["evaluate"], features=made["features"])
    other = alone_in(EditVectorEnv, shared, evaluate=made["evaluate"], features=made["features"])
    before = other.reset()[0]
    assert np.array_equal(before, other.reset(seed=0)[0])
    for seed in range(20):
        one.reset()
        one.step(random_actions(seed, len(made["structure"].groups)))
    assert shared.best.reward > shared.start.reward
    assert not np.array_equal(other.reset()[0], before)
    assert np.array_equal(other.reset(seed=0)[0], before), "with a seed, everything begins again"


def test_a_step_is_one_call_of_the_objective_and_a_spent_one_ends_it() -> None:
    made = parts("digits_net") | {"evaluate": RecordedObjective(limit=9)}
    env = many(made, 4, length=2)
    for _ in range(2):
        env.step(env.action_space.sample())
    assert [len(call) for call in made["evaluate"].calls] == [4, 4]
    with pytest.raises(EvaluationsSpent):
        env.step(env.action_space.sample())


def test_bad_options_and_actions_are_refused() -> None:
    made = parts("digits_net")
    structure, projector = made["structure"], made["projector"]
    start = editing(made).start
    for options, message in [
        ({"edits": 0, "max_log_correction": 1.0}, r"edits is how many of the \d groups an action changes, got 0"),
        ({"edits": len(structure.groups) + 1, "max_log_correction": 1.0}, "edits is how many of the"),
        ({"edits": 1, "max_log_correction": 0.0}, "max_log_correction must be positive and length at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            Editing(structure, projector, start, **options)
    with pytest.raises(ValueError, match="edits begin at a plan inside the budget"):
        editing(made, feasible=False)
    with pytest.raises(ValueError, match=r"actions.*nan"):
        single(made).step(np.full(len(structure.groups), np.nan, np.float32))


def test_it_is_made_by_name_from_the_uniform_plan() -> None:
    env: Any = gymnasium.make("autoprune/Edit-v0", task="digits", budget="macs:0.5", edits=1, length=2).unwrapped
    rule = env.episodes.editing
    assert isinstance(rule.projector, Projector)
    assert rule.start.plan.kept == tuple(rule.projector.project(np.ones(len(rule.structure.groups))))
    assert (rule.edits, rule.length) == (1, 2)
