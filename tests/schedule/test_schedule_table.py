"""The shipped tables answer as the networks themselves do, and say which schedule is the best."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_for_sb3

import autoprune  # noqa: F401
from autoprune.schedule.schedule_table import CHOICES, DECISIONS, ScheduleTable, ScheduleTableEnv
from autoprune.schedule.schedules import cubic, one_shot
from autoprune.schedule.table_building import NETWORKS, build_schedule_table, table_env


@pytest.mark.parametrize("name", NETWORKS)
def test_a_shipped_table_holds_every_schedule_and_its_best(name: Any) -> None:
    table = ScheduleTable.shipped(name)
    values = table.values("search_loss")
    assert values.size == 7776
    assert np.isfinite(values).all()
    best, value = table.best()
    assert value == values.max() == table.value(best)
    assert table.regret(best) == 0
    assert min(table.regret(np.unravel_index(i, values.shape)) for i in range(0, 7776, 100)) >= 0
    assert table.features.shape[1:] == (1555, 17)
    assert table.value((5, 0, 0, 0, 0)) == table.value((5, 3, 1, 2, 4)), "nothing was left to decide"
    assert table.densities((0, 0, 0, 0, 5))[-1] == pytest.approx(table.card["target"])


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_table_says_what_the_environment_says(name: Any) -> None:
    """On another processor sums of float32 differ in their last bits, and training makes them grow."""
    live, table = table_env(name, seed=0), ScheduleTableEnv(table=name, seeds=[0])
    for actions in ((0, 2, 3, 4, 5), (1, 1, 4, 0, 2), (5, 0, 0, 0, 0)):
        observation, _ = live.reset()
        looked_up, _ = table.reset()
        for action in actions:
            assert np.allclose(observation, looked_up, atol=0.02, rtol=0.02)
            observation, reward, over, _, info = live.step(action)
            looked_up, same, over_there, _, told = table.step(action)
            assert over == over_there
            assert reward == pytest.approx(same, abs=0.02)
            assert info["density"] == pytest.approx(told["density"], abs=1e-3)


def test_the_table_is_an_environment_for_gymnasium_and_sb3() -> None:
    env = gymnasium.make("autoprune/ScheduleTab-v0", table="digits_cnn").unwrapped
    check_env(env, skip_render_check=True)
    check_for_sb3(env, warn=True, skip_render_check=True)
    env.reset(seed=1)
    total, info = 0.0, {}
    for action in (0, 2, 4, 5, 0):
        _, reward, over, _, info = env.step(action)
        total += float(reward)
    assert over
    start = float(env.table.lookahead[0, 0])  # type: ignore[attr-defined]
    assert total - info["score"] == pytest.approx(start), "shaping is a constant"
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    env.reset()
    with pytest.raises(ValueError, match="whole numbers from 0 to 5"):
        env.step(6)
    with pytest.raises(ValueError, match="has the seeds 0 to 0"):
        ScheduleTableEnv(table="digits_cnn", seeds=[1])


def test_functions_are_looked_up_by_their_nearest_densities() -> None:
    table = ScheduleTable.shipped("digits_mlp")
    assert table.nearest(one_shot(start=0.4)) == (0, 0, 5, 0, 0)
    wanted = [1.0, *(0.05 + 0.95 * (1 - k / 4) ** 3 for k in (1, 2, 3, 4))]
    choices = table.nearest(cubic(start=0.2, end=0.8, decisions=4))
    reached = table.densities(choices)
    assert choices[0] == 0
    assert np.abs(np.log(np.array(reached) / wanted)).max() < 0.5


def test_building_goes_on_and_what_is_equal_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two choices instead of six, by the same code."""
    for module in ("schedule_table", "table_building"):
        monkeypatch.setattr(f"autoprune.schedule.{module}.CHOICES", 2)
        monkeypatch.setattr(f"autoprune.schedule.{module}.DECISIONS", 3)
    monkeypatch.setattr(
        "autoprune.schedule.table_building.SETTINGS", {"density": 0.05, "steps": 12, "decisions": 3, "counted": "steps"}
    )
    first = build_schedule_table("digits_mlp", seeds=1, folder=tmp_path, card={})
    parts = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert len(parts) == 2
    again = build_schedule_table("digits_mlp", seeds=1, folder=tmp_path, card={})
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == parts
    assert np.array_equal(first.features, again.features)
    env = table_env("digits_mlp", seed=0)
    for choices in np.ndindex(2, 2, 2):
        observation, _ = env.reset()
        for depth, choice in enumerate(choices):
            node = first.node(choices[:depth])
            assert np.allclose(observation, first.features[0, node].astype(np.float32), atol=0.01, rtol=0.01)
            observation, *_, info = env.step(choice)
        assert info["loss"] == pytest.approx(first.measured["search_loss"][(0, *choices)])
    path = tmp_path / "table.npz"
    first.save(path)
    assert np.array_equal(ScheduleTable.load(path).macs, first.macs)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="no table of schedules"):
        ScheduleTable.load(path)


def test_choices_that_are_none_are_sentences() -> None:
    table = ScheduleTable.shipped("digits_cnn")
    assert (CHOICES, DECISIONS) == (6, 5)
    for choices in ((0, 0, 0, 0, 6), (0,) * 6):
        with pytest.raises(ValueError, match="5 choices from 0 to 5"):
            table.value(choices)
