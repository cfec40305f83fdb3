"""Both environments are Gymnasium's and SB3's, meet density and budget, and earn nothing by stalling."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.env_checker import check_env as check_for_sb3

import autoprune  # noqa: F401
from autoprune.schedule.signals import FEATURES
from autoprune.testing import check_training_environment
from tests.schedule.training_tasks import digits_task

SMALL: dict[str, Any] = {"density": 0.1, "steps": 12, "decisions": 3}
KINDS: dict[str, dict[str, Any]] = {
    "schedule": {"id": "autoprune/Schedule-v0"},
    "levels": {"id": "autoprune/Schedule-v0", "levels": 6},
    "per_layer": {"id": "autoprune/Schedule-v0", "per_layer": True},
    "channels": {"id": "autoprune/Schedule-v0", "granularity": "channel", "density": 0.4},
    "rounds": {"id": "autoprune/Rounds-v0"},
}


def made(kind: str, **changes: Any) -> Any:
    options = {**SMALL, "task": digits_task("conv" if kind == "channels" else "dense"), **KINDS[kind], **changes}
    return gymnasium.make(options.pop("id"), **options).unwrapped


@pytest.mark.parametrize("kind", KINDS)
def test_it_conforms(kind: str) -> None:
    env = made(kind)
    check_training_environment(env)
    check_for_sb3(env, warn=True, skip_render_check=True)


def test_returns_are_the_score_but_for_a_constant() -> None:
    constants = []
    for seed in range(3):
        env = made("schedule")
        env.reset()
        env.action_space.seed(seed)
        over, total, info = False, 0.0, {}
        while not over:
            _, reward, over, _, info = env.step(env.action_space.sample())
            total += reward
        constants.append(total - info["score"])
    assert constants == pytest.approx([constants[0]] * 3)


def test_stalling_earns_nothing_before_the_end() -> None:
    """Potential-based: there and back is worth nothing, whatever happened between."""
    env = made("schedule", shaping=0.0)
    env.reset()
    rewards = [env.step(np.array([-1.0, -1.0]))[1] for _ in range(3)]
    assert rewards[:-1] == [0.0, 0.0]


def test_shared_beginnings_are_trained_once_and_come_to_the_same() -> None:
    env, again = made("levels"), made("levels", remembered=0)
    ends = {}
    for env_ in (env, again):
        for actions in ((1, 2, 3), (1, 2, 5), (1, 0, 3), (1, 2, 3)):
            env_.reset()
            for action in actions:
                observation, reward, _, _, info = env_.step(action)
            ends.setdefault(actions, []).append((observation.tolist(), reward, info["loss"]))
    assert env.trained == 6
    assert again.trained == 12
    for outcomes in ends.values():
        assert all(outcome == outcomes[0] for outcome in outcomes)


def test_episodes_meet_the_density_and_spend_the_budget_whatever_is_done() -> None:
    env = made("rounds")
    for seed in range(4):
        env.reset()
        env.action_space.seed(seed)
        over = False
        while not over:
            _, _, over, _, info = env.step(env.action_space.sample())
        pruned = info["pruned"]
        assert pruned.weights == round(0.1 * (64 * 32 + 32 * 10))
        assert 11 <= pruned.spent <= 12 + 1e-6
        assert pruned.removed_last == 0, "the last round prunes to the target"


def test_the_observation_says_what_happened() -> None:
    env = made("schedule", steps=60)
    env.reset()

    def features(action: list[float]) -> dict[str, float]:
        return dict(zip(FEATURES, env.step(np.array(action))[0].tolist(), strict=True))

    first = features([-1, -1])
    assert first["density"] == 0
    assert first["held_out_loss"] < 1
    assert first["drop"] == pytest.approx(0, abs=1e-6)
    assert first["noise_5"] > first["noise_1"] or abs(first["noise_5"]) < 0.01
    assert first["lookahead_target"] > first["lookahead_step"]
    assert first["decisions_left"] == pytest.approx(2 / 3)
    second = features([1, -1])
    assert second["density"] == pytest.approx(1, abs=1e-3)
    assert second["drop"] > 0.05, "90 % of the weights at once"
    assert second["lookahead_target"] == pytest.approx(0, abs=1e-5)
    assert second["mask_overlap"] == 1.0
    third = features([1, 1])
    assert third["mask_overlap"] == pytest.approx(0.5, abs=0.1), "half of the weights were exchanged"


def test_a_network_of_noise_has_the_full_rank_and_a_constant_one_none() -> None:
    from autoprune.schedule.decision import PruningGoal
    from autoprune.schedule.engine import PruningRun
    from autoprune.schedule.signals import SignalMeter

    run = PruningRun(digits_task("dense"), PruningGoal(density=0.5, steps=5), None or made("schedule").pruning.recipe)
    meter = SignalMeter(run, 2)
    rank = meter.measure().values["effective_rank"]
    assert 0.1 < rank < 1
    with torch.no_grad():
        run.training.parameters["1.weight"].zero_()
    assert meter.measure().values["effective_rank"] < 0.05


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"steps": 2}, "no step for each of 3 decisions"),
        ({"levels": 1}, "levels is at least 2"),
        ({"per_layer": True, "granularity": "channel"}, "per_layer needs granularity=weight"),
        ({"density": 0.00001}, "ask for a density of at least"),
        ({"render_mode": "human"}, "render_mode"),
    ],
)
def test_options_that_do_not_fit_are_sentences(changes: dict[str, Any], sentence: str) -> None:
    from autoprune.schedule.schedule_env import ScheduleEnv

    with pytest.raises(ValueError, match=sentence):
        ScheduleEnv(task=digits_task("dense"), **{**SMALL, **changes})
