"""Environments under several budgets, one of a cost with steps: what they observe, execute and return."""

from typing import Any

import gymnasium
import numpy as np
import pytest

from autoprune.cost.budget import Budget
from autoprune.cost.projection import Projector
from autoprune.env.layerwise import FEATURE_NAMES, LayerwiseVectorEnv
from autoprune.problem.group_features import group_features
from autoprune.problem.problem import Problem
from tests.cost.projectors import Stairs
from tests.cost.stairs import meets_all, together
from tests.env.plan_environments import single
from tests.tasks import prepared, tiny_task

BUDGET = ["macs:0.6", "params:0.5"]
MANY = 4


@pytest.fixture(scope="module")
def ready() -> Problem:
    return prepared(tiny_task("digits_net"), budget=BUDGET)


def parts(ready: Problem, *, steps: bool) -> dict[str, Any]:
    """Of the budgets, and of one more of a cost with steps."""
    projector, stairs = ready.projector, Stairs()
    if steps:
        dense = float(stairs(ready.structure.units))
        bounds = [*projector.budget.bounds, Budget("stairs:0.6", stairs, 0.6 * dense, dense)]
        projector = Projector(ready.structure, together(bounds, ready.structure))
    features = group_features(
        ready.structure, scores=ready.scores, errors=ready.errors, costs=ready.costs, budget=projector.budget
    )
    return {
        "structure": ready.structure, "projector": projector, "evaluate": ready.objective.uncharged.evaluate,
        "features": features,
    }  # fmt: skip


@pytest.mark.parametrize("steps", [False, True])
def test_episodes_end_inside_every_budget(ready: Problem, steps: bool) -> None:
    made = parts(ready, steps=steps)
    env, rng = single(LayerwiseVectorEnv, **made), np.random.default_rng(0)
    many = LayerwiseVectorEnv(num_envs=MANY, **made)
    projector, at = made["projector"], FEATURE_NAMES.index
    observation, _ = env.reset(seed=0)
    many.reset(seed=0)
    assert observation[at("budget")] == pytest.approx(min(b.relative for b in projector.budget.bounds))
    ended = False
    while not ended:
        assert observation in env.observation_space
        assert observation[at("floor")] <= observation[at("budget")] + 1e-6
        assert observation[at("least_density")] <= observation[at("most_density")]
        actions = rng.uniform(-1, 1, (MANY, 1)).astype(np.float32)
        observation, _, ended, _, info = env.step(actions[0])
        _, _, _, _, infos = many.step(actions)
        assert infos["executed_action"][0] == info["executed_action"]
    assert infos["plan"][0] == info["plan"]
    for plan in infos["plan"]:
        assert meets_all(projector, np.array(plan.kept))


def test_outcomes_say_what_every_budget_bounds(ready: Problem) -> None:
    dense, floor = ready.objective.uncharged.evaluate(
        [ready.structure.dense, ready.structure.plan(ready.structure.floor)]
    )
    assert {"macs", "params"} <= dense.cost.keys()
    assert (dense.feasible, floor.feasible) == (False, True)


def test_environments_are_made_by_name_with_a_list() -> None:
    env = gymnasium.make(
        "autoprune/OneShot-v0", task="digits", budget=["macs:0.5", "peak_memory:8KiB"], proxy_samples=20
    )
    env.reset(seed=0)
    *_, info = env.step(np.zeros(env.action_space.shape, np.float32))
    assert info["outcome"].feasible
    assert info["outcome"].cost["peak_memory"] <= 8192
