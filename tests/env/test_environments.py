from typing import Any

import gymnasium
import numpy as np
import pytest

import autoprune  # noqa: F401  registers the environments
from autoprune.env.action_scale import LEAST_DENSITY, actions_of, densities_of
from autoprune.env.episodes import SingleEpisode
from autoprune.env.layerwise import LayerwiseVectorEnv
from autoprune.env.one_shot import OneShotVectorEnv
from autoprune.problem.group_features import GROUP_FEATURES, group_features
from tests.env.plan_environments import single
from tests.language_models import causal_task
from tests.tasks import prepared, tiny_task


def layerwise(*, levels: int | None = None, **changes: Any) -> SingleEpisode:
    ready = prepared(tiny_task("digits_net"), **changes)
    return single(
        LayerwiseVectorEnv,
        ready.structure,
        projector=ready.projector,
        evaluate=ready.objective.uncharged.evaluate,
        features=ready.features,
        levels=levels,
    )


def one_shot(*, prior: bool = False, **changes: Any) -> SingleEpisode:
    ready = prepared(tiny_task("digits_net"), **changes)
    return single(
        OneShotVectorEnv,
        ready.structure,
        projector=ready.projector,
        evaluate=ready.objective.uncharged.evaluate,
        features=ready.features,
        prior=ready.projector.project(np.ones(len(ready.structure.groups))) if prior else None,
    )


ENVIRONMENTS = {
    "layerwise": layerwise,
    "discrete": lambda: layerwise(levels=7),
    "one_shot": one_shot,
    "correction": lambda: one_shot(prior=True),
}


def test_an_unknown_task_is_named_together_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'mnist'.*\['digits'"):
        gymnasium.make("autoprune/Layerwise-v0", task="mnist")


def episode(env: gymnasium.Env[Any, Any], actions: Any) -> tuple[list[dict[str, Any]], list[float], list[Any]]:
    observation, _ = env.reset(seed=0)
    infos, rewards, observations, over = [], [], [observation], False
    for action in actions:
        assert not over
        observation, reward, over, truncated, info = env.step(action)
        assert not truncated
        infos.append(info)
        rewards.append(reward)
        observations.append(observation)
    assert over
    return infos, rewards, observations


@pytest.mark.parametrize(("budget", "round_to"), [("macs:0.3", 1), ("macs:0.7", 2), ("params:0.4", 2)])
def test_any_actions_end_inside_the_budget_and_tight(budget: str, round_to: int) -> None:
    env = layerwise(budget=budget, round_to=round_to)
    rng = np.random.default_rng(0)
    groups, limit = env.structure.groups, env.projector.budget.limit
    for wish in [[-1.0] * len(groups), [1.0] * len(groups), *rng.uniform(-1, 1, (15, len(groups)))]:
        infos, rewards, _ = episode(env, [np.array([w], np.float32) for w in wish])
        plan, outcome = infos[-1]["plan"], infos[-1]["outcome"]
        cost = env.projector.budget.cost
        assert float(cost(np.array(plan.kept))) <= limit
        assert outcome.feasible
        assert rewards == [0.0] * (len(groups) - 1) + [outcome.reward]
        assert all(k in g.levels for g, k in zip(groups, plan.kept, strict=True))
        following = env.projector.next_levels(np.array(plan.kept))
        ups = np.repeat(np.array(plan.kept)[None], len(groups), axis=0)
        np.fill_diagonal(ups, following)
        assert (cost(ups) > limit).any(), plan  # tight: one more level of some group does not fit


@pytest.mark.parametrize("name", ["layerwise", "discrete"])
def test_replaying_the_executed_actions_gives_the_same_plan(name: str) -> None:
    env = ENVIRONMENTS[name]()
    groups = len(env.unwrapped.structure.groups)
    env.action_space.seed(0)
    for _ in range(10):
        wishes = [env.action_space.sample() for _ in range(groups)]
        infos, _, _ = episode(env, wishes)
        if name == "layerwise":
            again, _, _ = episode(env, [info["executed_action"] for info in infos])
            assert again[-1]["plan"] == infos[-1]["plan"]
        for info in infos:
            assert env.action_space.contains(np.asarray(info["executed_action"])[()])


@pytest.mark.parametrize("prior", [False, True])
def test_one_shot_plans_fill_the_budget(prior: bool) -> None:
    env = one_shot(prior=prior)
    rng = np.random.default_rng(0)
    cost, limit = env.projector.budget.cost, env.projector.budget.limit
    for _ in range(30):
        info = episode(env, [rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)])[0][0]
        kept = np.array(info["plan"].kept)
        ups = np.repeat(kept[None], len(kept), axis=0)
        np.fill_diagonal(ups, env.projector.next_levels(kept))
        assert float(cost(kept)) <= limit
        assert (cost(ups)[ups.diagonal() > kept] > limit).all()


def test_observations_name_what_they_hold() -> None:
    env = layerwise(budget="macs:0.4")
    at = env.feature_names.index
    observation, _ = env.reset()
    assert len(observation) == len(set(env.feature_names))
    assert observation[at("budget")] == pytest.approx(env.projector.budget.relative)
    assert observation[at("last_action")] == 1
    assert observation[at("ceiling")] == pytest.approx(1)
    assert observation[at("floor")] + observation[at("left")] == pytest.approx(observation[at("budget")], abs=1e-6)
    following, *_ = env.step(np.array([-1.0], np.float32))
    assert following[at("ceiling")] < 1
    assert following[at("last_action")] < 1
    assert following[at("depth")] > observation[at("depth")]


def test_features_do_not_depend_on_the_other_groups() -> None:
    """Relative and log-scaled, never min-max over this network: scaling a group's scores changes nothing."""
    ready = prepared(tiny_task("digits_net"))
    arguments = {"errors": ready.errors, "costs": ready.costs, "budget": ready.projector.budget}
    before = group_features(ready.structure, scores=ready.scores, **arguments)
    scaled = {name: 1000 * scores for name, scores in ready.scores.items()}
    assert np.allclose(group_features(ready.structure, scores=scaled, **arguments), before)
    assert before.shape == (len(ready.structure.groups), len(GROUP_FEATURES))
    assert np.isfinite(before).all()
    assert np.abs(before).max() < 12


def test_features_hold_the_readers_errors_by_density() -> None:
    ready = prepared(tiny_task("digits_net"))
    errors = {group.name: np.linspace(1, 0, group.units + 1) for group in ready.structure.groups}
    features = group_features(
        ready.structure, scores=ready.scores, errors=errors, costs=ready.costs, budget=ready.projector.budget
    )
    at = [GROUP_FEATURES.index(f"reconstruction_error_{percent}") for percent in (25, 50, 75)]
    assert features[:, at].tolist() == pytest.approx(np.tile([0.75, 0.5, 0.25], (len(errors), 1)))


def test_an_episode_that_is_over_takes_no_step() -> None:
    env = layerwise()
    actions = [np.array([0.0], np.float32) for _ in env.structure.groups]
    episode(env, actions)
    with pytest.raises(gymnasium.error.ResetNeeded, match="the episodes are over"):
        env.step(actions[0])
    episode(env, actions)


def test_actions_and_densities_are_inverse() -> None:
    actions = np.linspace(-1, 1, 101)
    assert actions_of(densities_of(actions)) == pytest.approx(actions)
    assert densities_of(np.array([-7.0, 7.0])).tolist() == [LEAST_DENSITY, 1.0]


def test_key_blocks_are_groups_like_any_other() -> None:
    kinds = ("heads", "keys:4", "neurons")
    ready = prepared(causal_task("llama"), prune=kinds, budget="macs:0.7", proxy_samples=20, batch_size=20)
    features = ready.features
    assert np.isfinite(features).all()
    column = {name: features[:, GROUP_FEATURES.index(name)] for name in ("granularity_key_block", "params", "macs")}
    assert column["granularity_key_block"].tolist() == [0, 1, 0] * 3
    keys = column["granularity_key_block"] == 1
    assert (column["params"][keys] == 0).all()
    assert column["macs"][keys] == pytest.approx(np.log10(1 + 2 * 32 * 16 * 16))
    env = single(
        LayerwiseVectorEnv,
        ready.structure,
        projector=ready.projector,
        evaluate=ready.objective.uncharged.evaluate,
        features=features,
    )
    for action in (-1.0, 0.0, 1.0):
        infos, *_ = episode(env, [np.array([action], np.float32)] * len(features))
        assert infos[-1]["outcome"].cost["macs"] <= ready.projector.budget.limit
