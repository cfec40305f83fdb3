"""Settings as a carried policy sees them: on any network an action of 0 is the prior, and a reward says the same."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autoprune.env.transfer_env import TransferVectorEnv
from autoprune.env.transfer_features import PLANS, ROW_FEATURES, column, neighbours, padded
from autoprune.env.transfer_task import MOST, TransferTask, transfer_task_of
from autoprune.evaluation.curves import single_group_curves
from autoprune.structure.graph import find_structure
from autoprune.task.variants import variant_network
from tests.tasks import prepared, tiny_task

GROUPS = 7  # more than the tiny task has


@pytest.fixture(scope="module")
def made() -> tuple[TransferTask, Any]:
    ready = prepared(tiny_task(), budget="macs:0.5")
    evaluate = partial(ready.objective.uncharged.evaluate, whole=True)
    return transfer_task_of(
        "tiny",
        ready.structure,
        ready.projector,
        evaluate=evaluate,
        features=ready.features,
        errors=ready.errors,
        curves=single_group_curves(ready.structure, evaluate),
        max_log_correction=1.5,
    )


@pytest.fixture
def setting(made: tuple[TransferTask, Any]) -> TransferTask:
    return made[0]


def test_no_action_is_the_prior(setting: TransferTask) -> None:
    nothing = np.zeros((1, GROUPS), np.float32)
    assert setting.project(nothing).tolist() == [setting.prior.kept.tolist()]
    assert setting.executable(nothing).tolist() == nothing.tolist()


@given(data=st.data())
def test_actions_become_plans_inside_the_budget_and_back(made: tuple[TransferTask, Any], data: st.DataObject) -> None:
    setting = made[0]
    actions = np.array([[data.draw(st.floats(-1, 1)) for _ in range(GROUPS)]], np.float32)
    kept = setting.project(actions)
    assert float(setting.projector.budget.cost(kept[0])) <= setting.projector.budget.limit
    executed = setting.executable(actions)
    assert not executed[:, len(setting.rows) :].any(), "padding does nothing"
    assert np.abs(executed).max() <= 1
    if np.abs(executed).max() < 1:  # within reach, what was executed says which plan it was
        assert setting.plans_of(executed).tolist() == kept.tolist()
        assert setting.action_of(kept, groups=GROUPS).tolist() == executed.tolist()


def test_rewards_compare_with_the_prior(made: tuple[TransferTask, Any]) -> None:
    setting, (prior, uniform) = made
    assert setting.reward(prior) == 0
    gain = np.log(setting.prior.lost + 1e-3) - np.log(setting.uniform.lost + 1e-3)
    assert setting.reward(uniform) == pytest.approx(np.clip(gain, -MOST, MOST))
    better, hopeless = (replace(prior, metrics=replace(prior.metrics, kl=kl)) for kl in (prior.metrics.kl / 2, 20.0))
    assert 0 < setting.reward(better) < np.log(2)
    assert setting.reward(hopeless) == -MOST
    assert setting.reward(replace(prior, failed="it fell over")) == -MOST


def test_rows_say_what_is_known_of_the_plans(setting: TransferTask) -> None:
    for name in PLANS:
        plan = getattr(setting, name)
        assert setting.rows[:, column(f"{name}_lost")] == pytest.approx(plan.lost)
        assert setting.rows[:, column(f"{name}_density")] == pytest.approx(plan.kept / setting.structure.units)
    assert setting.rows[:, column("budget")] == pytest.approx(0.5)
    assert setting.rows[:, column("cost_macs")].tolist() == setting.rows[:, column("present")].tolist()
    lost = setting.rows[:, column("lost_5") : column("lost_100") + 1]
    assert (np.diff(lost, axis=1) <= 1e-9).all()
    assert not lost[:, -1].any()


def test_observations_are_padded_with_nothing(setting: TransferTask) -> None:
    many, features = len(setting.rows), len(ROW_FEATURES)
    seen = setting.observation(groups=GROUPS).reshape(GROUPS, features + GROUPS)
    assert seen[:many, :features] == pytest.approx(setting.rows, rel=1e-6)
    assert seen[:many, features : features + many].tolist() == setting.edges.tolist()
    assert not seen[many:].any()
    with pytest.raises(ValueError, match=rf"{many} groups.*of {many - 1}"):
        padded(setting.rows, setting.edges, groups=many - 1)


@pytest.mark.parametrize("family", ["plain", "residual", "depthwise", "dense"])
def test_who_reads_whom_are_neighbours(family: str) -> None:
    structure = find_structure(
        variant_network(family=family, number=1, images="digits").eval(), torch.zeros(1, 1, 8, 8)
    )
    edges = neighbours(structure)
    assert (edges == edges.T).all()
    assert not edges.diagonal().any()
    if len(edges) > 1:
        assert edges.any(axis=1).all(), "no group stands alone"
    if family in ("plain", "dense"):  # a chain
        assert (np.argwhere(edges) @ [1, -1]).tolist().count(1) == len(edges) - 1
        assert set(np.abs(np.argwhere(edges) @ [1, -1]).tolist()) <= {1}


def test_a_batch_is_in_one_setting_and_all_come_in_turn(setting: TransferTask) -> None:
    env = TransferVectorEnv([setting, setting, setting], num_envs=4, groups=GROUPS)
    observation, _ = env.reset(seed=0)
    assert observation.shape == env.observation_space.shape
    seen = []
    for _ in range(6):
        actions = env.action_space.sample()
        observation, rewards, over, cut, said = env.step(actions)
        assert over.all()
        assert not cut.any()
        assert len({*said["final_info"]["setting"]}) == 1
        seen.append(int(said["final_info"]["setting"][0]))
        plans = [list(plan.kept) for plan in said["final_info"]["plan"]]
        assert plans == setting.project(actions).tolist()
        assert rewards.tolist() == [setting.reward(outcome) for outcome in said["final_info"]["outcome"]]
    assert sorted(seen[:3]) == sorted(seen[3:]) == [0, 1, 2]
    assert env.spent == 24


def test_what_cannot_be_learned_in_is_refused(setting: TransferTask) -> None:
    with pytest.raises(ValueError, match="at least one task"):
        TransferVectorEnv([], num_envs=2)
    with pytest.raises(ValueError, match=rf"{len(setting.rows)} groups.*fit 1"):
        TransferVectorEnv([setting], num_envs=2, groups=1)


def test_what_is_known_is_what_was_evaluated(made: tuple[TransferTask, Any]) -> None:
    setting, outcomes = made
    known = setting.replay_seed(outcomes, groups=GROUPS)
    assert known.done == len(known.rewards) == 2
    assert setting.plans_of(known.actions[:1]).tolist() == [list(outcomes[0].plan.kept)]
    near = known.neighbours(np.repeat(known.actions[:1], 30, axis=0), np.random.default_rng(0))
    plans = setting.plans_of(near)
    assert len({tuple(plan) for plan in plans.tolist()}) > 1
    for plan in plans:
        assert float(setting.projector.budget.cost(plan)) <= setting.projector.budget.limit
