"""Many episodes in lockstep are what each would be alone, and their plans reach the objective as one batch."""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import DictInfoToList, NormalizeReward, RecordEpisodeStatistics
from hypothesis import given
from hypothesis import strategies as st

import autoprune  # noqa: F401  registers the environments
from autoprune.cost.model import macs
from autoprune.cost.projection import Projector
from autoprune.env.layerwise import LayerwiseEnv
from autoprune.env.one_shot import OneShotEnv
from autoprune.env.plan_edits import EditVectorEnv
from autoprune.env.vector_envs import LayerwiseVectorEnv, OneShotVectorEnv
from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.evaluation.outcome import Metrics, Outcome
from autoprune.plan import PruningPlan
from autoprune.problem.group_features import GROUP_FEATURES
from tests.cost.test_allocation import Stairs, projector_for
from tests.cost.test_projection import budget_of, on_multiples, structure_of
from tests.tasks import tiny_task


class Recorded:
    """An objective whose rewards follow from the plan; it remembers its calls, and has `limit` evaluations."""

    def __init__(self, limit: int = 10**6) -> None:
        self.calls: list[list[PruningPlan]] = []
        self.limit = limit

    def __call__(self, plans: Sequence[PruningPlan]) -> list[Outcome]:
        self.calls.append(list(plans))
        if sum(map(len, self.calls)) > self.limit:
            raise EvaluationsSpent
        return [outcome_of(plan) for plan in plans]


def outcome_of(plan: PruningPlan) -> Outcome:
    reward = float(np.sin(np.arange(1, 1 + len(plan.kept)) @ np.array(plan.kept)))
    metrics = Metrics(accuracy=0.5, loss=1.0, kl=0.1, agreement=0.9, samples=10)
    return Outcome(
        plan=plan, metrics=metrics, cost={}, score=reward, reward=reward, feasible=True, seconds=0.0, whole=True
    )


def parts(name: str = "residual", *, fraction: float = 0.5, round_to: int = 1, cost: int = 0) -> dict[str, Any]:
    """What an environment over that network is made of; cost: 0 to 2 as in tests.cost, 3 one that is not bilinear."""
    structure = structure_of(name) if round_to == 1 else on_multiples(structure_of(name), round_to)
    projector = (
        projector_for(structure, Stairs(), fraction)
        if cost == 3
        else Projector(structure, budget_of(structure, fraction=fraction, cost=cost))
    )
    features = np.random.default_rng(0).uniform(-1, 5, (len(structure.groups), len(GROUP_FEATURES)))
    return {"structure": structure, "projector": projector, "evaluate": Recorded(), "features": features}


@st.composite
def any_parts(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(st.sampled_from(["residual", "dense", "grouped", "shared_layer", "digits_net", "resnet20"]))
    round_to = draw(st.sampled_from([1, 3, 8])) if name in ("digits_net", "resnet20") else 1
    return parts(name, fraction=draw(st.floats(0, 1)), round_to=round_to, cost=draw(st.integers(0, 3)))


def alone(env: gymnasium.Env[Any, Any], actions: np.ndarray[Any, Any]) -> tuple[list[Any], list[float], list[Any]]:
    """Observations with the first one, rewards and infos of one episode: actions [steps, …]."""
    observations, rewards, infos = [env.reset(seed=0)[0]], [], []
    for action in actions:
        observation, reward, *_, info = env.step(action)
        observations.append(observation)
        rewards.append(float(reward))
        infos.append(info)
    return observations, rewards, infos


def assert_lockstep(many: Any, one: gymnasium.Env[Any, Any], actions: np.ndarray[Any, Any]) -> None:
    """Two batches in a row, actions [steps, episodes, …], are to the last bit the episodes alone."""
    single = [alone(one, actions[:, episode]) for episode in range(actions.shape[1])]
    first, _ = many.reset(seed=0)
    for _ in range(2):
        for step, action in enumerate(actions):
            assert np.array_equal(first, [observations[step] for observations, _, _ in single])
            first, rewards, ended, truncated, infos = many.step(action)
            assert rewards.tolist() == [each[step] for _, each, _ in single]
            assert not truncated.any()
            assert set(ended) == {step == len(actions) - 1}
            for key in single[0][2][step]:
                said = [each[step][key] for _, _, each in single]
                assert np.array_equal(np.stack(list(infos[key])), np.stack(said)), key
                assert infos[f"_{key}"].all()
        assert np.array_equal(np.stack(infos["final_obs"]), [observations[-1] for observations, _, _ in single])
        assert infos["final_info"]["plan"].tolist() == [each[-1]["plan"] for _, _, each in single]
        assert infos["_final_obs"].all()
        assert infos["_final_info"].all()


@given(st.data())
def test_layerwise_episodes_in_lockstep_are_those_alone(data: st.DataObject) -> None:
    made, episodes = data.draw(any_parts()), data.draw(st.integers(1, 4))
    size = (len(made["structure"].groups), episodes, 1)
    actions = np.random.default_rng(data.draw(st.integers(0, 99))).normal(0, 0.8, size).astype(np.float32)
    assert_lockstep(LayerwiseVectorEnv(num_envs=episodes, **made), LayerwiseEnv(**made), actions)


@given(st.data())
def test_one_shot_episodes_in_lockstep_are_those_alone(data: st.DataObject) -> None:
    made, episodes = data.draw(any_parts()), data.draw(st.integers(1, 3))
    groups = len(made["structure"].groups)
    if data.draw(st.booleans()):
        made |= {"prior": made["projector"].project(np.ones(groups)), "max_log_correction": 1.5}
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    actions = rng.normal(0, 0.8, (1, episodes, groups)).astype(np.float32)
    assert_lockstep(OneShotVectorEnv(num_envs=episodes, **made), OneShotEnv(**made), actions)


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


def test_spent_evaluations_leave_it_at_its_end_until_it_is_reset() -> None:
    made = parts() | {"evaluate": Recorded(limit=5)}
    env = LayerwiseVectorEnv(num_envs=4, **made)
    with pytest.raises(EvaluationsSpent):
        play(env, batches=2)
    with pytest.raises(gymnasium.error.ResetNeeded, match="all groups are decided"):
        env.step(env.action_space.sample())
    env.reset()
    env.step(env.action_space.sample())


def test_a_part_of_the_episodes_cannot_be_reset() -> None:
    env = LayerwiseVectorEnv(num_envs=2, **parts())
    with pytest.raises(ValueError, match="episodes in lockstep begin together"):
        env.reset(options={"reset_mask": np.array([True, False])})
    env.reset(options={"reset_mask": np.array([True, True])})


def test_bad_actions_are_refused() -> None:
    env = LayerwiseVectorEnv(num_envs=2, **parts())
    with pytest.raises(ValueError, match="wishes must be numbers of units"):
        env.step(np.array([[0.0], [np.nan]], np.float32))
    with pytest.raises(ValueError, match="cannot reshape"):
        env.step(np.zeros((3, 1), np.float32))
    with pytest.raises(ValueError, match="densities must be finite"):
        OneShotVectorEnv(num_envs=1, **parts()).step(np.full((1, 2), np.nan, np.float32))


def test_the_budget_holds_for_every_episode() -> None:
    made = parts("resnet20", fraction=0.3)
    infos = play(LayerwiseVectorEnv(num_envs=32, **made))
    kept = np.array([plan.kept for plan in infos["plan"]])
    assert (macs(made["structure"])(kept) <= made["projector"].budget.limit).all()
    assert len({plan.kept for plan in infos["plan"]}) == 32
