"""The searches that learn nothing, and every agent of conf/, with settings for small problems."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields
from functools import cache, partial
from typing import Any

import pytest
import yaml
from hydra.utils import instantiate

from autoprune.cli import conf_dir
from autoprune.env.env_spec import EnvSpec
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem
from autoprune.search import annealing, cma, evolution, greedy, legr, random_around, spdy, tpe

Run = Callable[..., PruningPlan]
SEARCHES: dict[str, Run] = {
    "annealing": partial(annealing.search, start="uniform", step=0.2, first=0.3, last=0.003),
    "cmaes": partial(cma.search, start="uniform", sigma=0.3, population=None),
    "evolution": partial(evolution.search, start="uniform", offspring=8, switches=3, step=0.2),
    "greedy": partial(greedy.search, step=0.1),
    "legr": partial(legr.search, population=24, sample=8, share=0.25, sigma=1.0),
    "random_around": partial(random_around.search, start="sensitivity", sigma=0.22),
    "spdy": partial(spdy.search, sigma=1.0, share=0.5),
    "tpe": partial(tpe.search, least_density=0.1, random=10),
}


AGENTS = [
    "a2c", "amc", "critic_guided", "crossq", "ddpg", "dqn", "edit_ppo", "ppo", "recurrent_ppo", "sac", "td3", "tqc",
]  # fmt: skip
FAST = ("critic_guided", "dqn", "edit_ppo", "ppo")  # a replay with a seed, levels, edits, rollouts
FIELDS = {field.name for field in fields(EnvSpec)}


def search(name: str, *, constraint: str = "projection", **changes: Any) -> Any:
    """The search that conf/agent/NAME.yaml configures, other values for some keys (`agent__hidden=…`)."""
    settings = deepcopy(configured("agent", name))
    if "constraint" in settings:
        settings["constraint"] = deepcopy(configured("constraint", constraint))
    if "policy" in settings:
        settings["policy"] = changes.pop("policy", None)
    for key, value in changes.items():
        *path, last = f"env__{key}".split("__") if key in FIELDS else key.split("__")
        place = settings
        for part in path:
            place = place[part]
        place[last] = value
    return instantiate(settings, _convert_="all")


@cache
def configured(group: str, name: str) -> Any:
    """What conf/GROUP/NAME.yaml says; to be copied before it is changed."""
    return yaml.safe_load((conf_dir() / group / f"{name}.yaml").read_text())


def short(name: str) -> dict[str, Any]:
    """amc's hundred episodes of warm-up are more than a test has, and so are many updates for each episode."""
    if name == "amc":
        return {"agent__experience__warm_up_episodes": 5}
    updated = name in ("critic_guided", "crossq", "ddpg", "sac", "td3", "tqc")
    return {"agent__experience__updates_per_episode": 2} if updated else {}


def batch_sizes(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of all batches that its objective is asked for from here on; the list grows with them."""
    evaluate, sizes = problem.objective.evaluate, list[int]()

    def counted(plans: Any, **options: Any) -> Any:
        sizes.append(len(plans))
        return evaluate(plans, **options)

    monkeypatch.setattr(problem.objective, "evaluate", counted)
    return sizes
