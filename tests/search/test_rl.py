"""Agents as searches: they keep to the evaluation budget, repeat themselves from the same seed, and refuse nonsense."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hydra.utils import instantiate

from autoprune.agent.bundle import load_policy, load_training
from autoprune.cli import conf_dir
from autoprune.search import random
from tests.search.test_baselines import filled, problem
from tests.tasks import prepared, tiny_task

AGENTS = ["a2c", "amc", "ddpg", "dqn", "ppo", "sac", "td3", "tqc"]


def search(name: str, **changes: Any) -> Any:
    """The search that conf/agent/NAME.yaml configures, with other values for some of its keys (`agent.hidden=…`)."""
    settings = yaml.safe_load((conf_dir() / "agent" / f"{name}.yaml").read_text())
    for key, value in changes.items():
        *path, last = key.split("__")
        place = settings
        for part in path:
            place = place[part]
        place[last] = value
    return instantiate(settings, _convert_="all")


def short(name: str) -> dict[str, Any]:
    """amc's hundred episodes of warm-up are more than a test has."""
    return {"agent__experience__warm_up_episodes": 5} if name == "amc" else {}


@pytest.mark.parametrize("name", AGENTS)
def test_it_spends_its_budget_and_returns_the_best_of_what_it_saw(name: str, tmp_path: Path) -> None:
    ready, seen = prepared(tiny_task()), list[Any]()
    given = problem(ready, tmp_path, limit=60, seen=seen)
    plan = search(name, **short(name))(given, rng=np.random.default_rng(0))
    assert len(seen) == given.objective.spent == 60
    feasible = [outcome for _, outcome in seen if outcome.feasible]
    assert plan == max(feasible, key=lambda outcome: outcome.reward).plan
    assert all(outcome.feasible for phase, outcome in seen if phase == "search")
    assert load_training(tmp_path / "policy").evaluations == 60
    assert load_policy(tmp_path / "policy").algorithm == (name.upper() if name != "amc" else "DDPG")


@pytest.mark.parametrize("name", ["ppo", "ddpg", "dqn"])
def test_the_same_seed_gives_the_same_search(name: str, tmp_path: Path) -> None:
    histories = []
    for attempt, seed in enumerate([0, 0, 1]):
        seen: list[Any] = []
        given = problem(prepared(tiny_task("digits_net")), tmp_path / str(attempt), limit=80, seen=seen)
        search(name)(given, rng=np.random.default_rng(seed))
        histories.append([outcome.plan.kept for _, outcome in seen])
    assert histories[0] == histories[1] != histories[2]


@pytest.mark.parametrize("prior", ["none", "uniform", "sensitivity"])
def test_a_prior_is_where_one_shot_actions_start(prior: str, tmp_path: Path) -> None:
    ready, seen = prepared(tiny_task()), list[Any]()
    search("ppo", prior=prior, reach=None if prior == "none" else 1.0)(
        problem(ready, tmp_path, limit=60, seen=seen), rng=np.random.default_rng(0)
    )
    assert any(phase == "curves" for phase, _ in seen) == (prior == "sensitivity")
    assert all(filled(ready, outcome.plan.kept) for phase, outcome in seen if phase == "search")


@pytest.mark.parametrize(
    ("name", "changes", "batch"),
    [
        ("ppo", {"prior": "uniform"}, 10),
        ("ppo", {"mode": "layerwise", "prior": "none", "reach": None}, 10),
        ("a2c", {"prior": "uniform"}, 5),
        ("ddpg", {"prior": "uniform"}, 1),
        ("dqn", {}, 1),
    ],
)
def test_a_rollouts_plans_are_evaluated_as_one_batch(
    name: str, changes: Any, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = problem(prepared(tiny_task()), tmp_path, limit=53)
    evaluate, sizes = given.objective.evaluate, list[int]()

    def counted(plans: Any, **options: Any) -> Any:
        sizes.append(len(plans))
        return evaluate(plans, **options)

    monkeypatch.setattr(given.objective, "evaluate", counted)
    search(name, **changes)(given, rng=np.random.default_rng(0))
    assert given.objective.left == 0
    assert set(sizes) - {1} == {batch} - {1}
    assert sizes.count(batch) >= 3


def test_an_agent_beats_random_where_it_has_evaluations_enough(tmp_path: Path) -> None:
    """Only sanity: the comparison that counts is made with seeds and intervals, by experiments/."""
    ready = prepared(tiny_task("separable"), budget="macs:0.3")
    best = {}
    for name, run in {
        "ppo": search("ppo"),
        "random": lambda p, rng: random.search(p, rng=rng, least_density=0.1),
    }.items():
        given = problem(ready, tmp_path, limit=200)
        run(given, rng=np.random.default_rng(0))
        assert given.objective.best is not None
        best[name] = given.objective.best.score
    assert best["ppo"] >= best["random"] - 0.02 * abs(best["random"])


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("ppo", {"mode": "sideways"}, "must be layerwise or one_shot, got 'sideways'"),
        ("ppo", {"prior": "best"}, "must be none, uniform or sensitivity, got 'best'"),
        ("ppo", {"mode": "layerwise"}, "needs prior=none"),
        ("ppo", {"reach": None}, "how far corrections"),
        ("ppo", {"prior": "none"}, "how far corrections"),
        ("ppo", {"levels": 5}, "is for DQN"),
        ("dqn", {"levels": None}, "DQN needs it"),
        ("dqn", {"mode": "one_shot"}, "must be layerwise"),
        ("ppo", {"greedy_every": 0}, "at least 1 update"),
    ],
)
def test_an_option_that_does_not_apply_is_an_error(name: str, changes: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        search(name, **changes)(problem(prepared(tiny_task()), tmp_path, limit=60), rng=np.random.default_rng(0))
