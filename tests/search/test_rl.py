"""Agents as searches: they keep to the evaluation budget, repeat themselves from the same seed, and refuse nonsense."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.errors import InstantiationException

from autoprune.cli import conf_dir
from autoprune.problem.problem import Problem
from tests.search.known import KNOWN
from tests.search.learners import learnable
from tests.search.searches import AGENTS, batch_sizes, search, short
from tests.search.toys import filled, problem
from tests.tasks import prepared, tiny_task


def test_they_are_all_the_agents_that_are_configured() -> None:
    configured = [path for path in (conf_dir() / "agent").glob("*.yaml") if "search.rl.search" in path.read_text()]
    assert sorted(path.stem for path in configured) == AGENTS


def test_another_seed_is_another_search(tmp_path: Path) -> None:  # the same is the same: test_testing.py
    histories = []
    for seed in range(2):
        seen: list[Any] = []
        given = learnable(KNOWN["chain"], tmp_path / str(seed), limit=48, seen_by=seen)
        search("edit_ppo")(given, rng=np.random.default_rng(seed))
        histories.append([outcome.plan.kept for _, outcome in seen])
    assert histories[0] != histories[1]


@pytest.mark.parametrize("prior", ["none", "uniform", "sensitivity"])
def test_a_prior_is_where_one_shot_actions_start(prior: str, tmp_path: Path) -> None:
    seen: list[Any] = []
    given = learnable(KNOWN["chain"], tmp_path, limit=60, seen_by=seen)
    search("ppo", prior=prior, max_log_correction=None if prior == "none" else 1.0)(given, rng=np.random.default_rng(0))
    assert any(phase == "curves" for phase, _ in seen) == (prior == "sensitivity")
    assert all(filled(given, outcome.plan.kept) for phase, outcome in seen if phase == "search")


@pytest.mark.parametrize(
    ("name", "changes", "batch"),
    [
        ("ppo", {"prior": "uniform"}, 10),
        ("ppo", {"mode": "layerwise", "prior": "none", "max_log_correction": None}, 10),
        ("a2c", {"prior": "uniform"}, 5),
        ("ddpg", {"prior": "uniform"}, 1),
        ("dqn", {}, 1),
        ("edit_ppo", {"prior": "uniform", "agent__experience__episodes": 10}, 10),
        ("recurrent_ppo", {"prior": "uniform"}, 10),
        ("sac", {"prior": "uniform", "agent__experience__parallel": 10}, 10),
        ("critic_guided", {"prior": "uniform", "agent__experience__parallel": 10}, 10),
    ],
)
def test_a_rollouts_plans_are_evaluated_as_one_batch(
    name: str, changes: Any, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = learnable(KNOWN["chain"], tmp_path, limit=53)
    sizes = batch_sizes(given, monkeypatch)
    search(name, **short(name), **changes)(given, rng=np.random.default_rng(0))
    assert given.objective.left == 0
    *whole, left_over, own = sizes
    assert set(whole) - {1} == {batch} - {1}
    assert left_over <= batch, "what is left over is a batch of its own"
    assert own == 1, "the last evaluation is the policy's own plan"
    assert sizes.count(batch) >= 3


@pytest.fixture(scope="module")
def ready() -> Problem:
    return prepared(tiny_task())


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("ppo", {"mode": "sideways"}, r"one_shot.*'sideways'"),
        ("ppo", {"prior": "best"}, r"closed_form.*'best'"),
        ("ppo", {"reward_shaping": "late"}, "must be terminal or shaped, got 'late'"),
        ("ppo", {"observation": "nothing"}, "'nothing'"),
        ("ppo", {"prior": "none"}, "how far corrections"),
        ("ppo", {"max_log_correction": 0.0}, r"max_log_correction.*\(0, inf\).*0\.0"),
        ("ppo", {"levels": 5}, r"env.levels=5"),
        (
            "ppo",
            {"levels": 5, "mode": "layerwise", "prior": "none", "max_log_correction": None},
            "is for DQN|are for DQN",
        ),
        ("dqn", {"levels": None}, "DQN needs them"),
        ("dqn", {"mode": "one_shot"}, "they need agent.env.mode=layerwise"),
        ("dqn", {"prior": "uniform", "max_log_correction": 1.0}, "one group at a time, not corrections"),
        ("ppo", {"edits": 2}, "agent.env.edits is for agent.env.mode=edit"),
        ("ppo", {"length": 2}, "agent.env.length is for agent.env.mode=edit"),
        ("edit_ppo", {"edits": None}, r"agent.env.edits.*agent.env.mode=edit"),
        ("edit_ppo", {"prior": "none", "max_log_correction": None}, "edits begin at a plan"),
        ("edit_ppo", {"observation": "budget"}, "would not say which group"),
        ("ppo", {"reward_shaping": "shaped"}, "agent.env.prior=sensitivity, got one_shot"),
        ("ppo", {"reward_shaping": "shaped", "mode": "layerwise", "prior": "uniform"}, "got layerwise and uniform"),
        (
            "ppo",
            {
                "reward_shaping": "shaped",
                "prior": "sensitivity",
                "mode": "layerwise",
                "agent__hyperparameters__gamma": 0.9,
            },
            r"gamma=1.0, not 0.9",
        ),
        (
            "ddpg",
            {
                "reward_shaping": "shaped",
                "prior": "sensitivity",
                "mode": "layerwise",
                "agent__experience__copy_terminal_reward": True,
            },
            "reward_shaping=shaped needs copy_terminal_reward=false",
        ),
        ("ppo", {"seed_replay": True}, "PPO has none"),
        ("sac", {"seed_replay": True, "mode": "layerwise"}, "mode=one_shot"),
        ("sac", {"seed_replay": True, "prior": "none", "max_log_correction": None}, "mode=one_shot"),
        ("critic_guided", {"seed_replay": False}, r"agent.env.mode=one_shot.*agent.env.seed_replay=true"),
        ("critic_guided", {"agent__experience__episodes": 50}, r"agent.agent.experience.episodes"),
        ("sac", {"mode": "layerwise", "agent__experience__standardised": True}, "of one-step episodes"),
        ("ppo", {"mode": "layerwise", "agent__network": "shared"}, r"agent.env.mode=one_shot.*layerwise"),
        ("ppo", {"observation": "budget", "agent__network": "shared_bias"}, "got one_shot and budget"),
        ("recurrent_ppo", {"mode": "one_shot"}, "nothing to remember"),
        ("recurrent_ppo", {"mode": "edit", "edits": 2, "length": 1}, "nothing to remember"),
    ],
)
def test_an_option_that_does_not_apply_is_an_error(
    name: str, changes: Any, message: str, ready: Problem, tmp_path: Path
) -> None:
    given = problem(ready, tmp_path, limit=60)
    with pytest.raises((ValueError, InstantiationException), match=message):
        search(name, **changes)(given, rng=np.random.default_rng(0))
    assert given.objective.spent == 0, "before anything is paid for"
