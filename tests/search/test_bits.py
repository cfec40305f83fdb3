"""Agents of every kind decide on pairs of density and bits: in the budget, on levels, and by what they evaluated."""

from pathlib import Path

import numpy as np
import pytest

from autoprune.cli import conf_dir
from autoprune.problem.problem import Problem
from experiments.configuration import composed, instantiate_part
from tests.sampling import covering
from tests.tasks import prepared, tiny_task

BITS = (2, 3, 4, 5, 6, 8)
# what they need, and a decision on single weights has not: a policy, blocks
OTHERS = ("apply", "block_influence", "owl", "ramp")
# tried once when they were made, and too slow for every run: critic_guided, amc, dqn and evolution are of their kinds
SLOWEST = {"bayesian", "crossq", "ddpg", "model_based", "sac", "spdy", "td3", "tpe", "tqc", "transferable"}
EVERY = {path.stem for path in (conf_dir() / "agent").glob("*.yaml")}
AGENTS = sorted(EVERY - SLOWEST - {*OTHERS})
SHORT = {"amc": ["agent.agent.experience.warm_up_episodes=5"]}


@pytest.fixture(scope="module")
def problem() -> Problem:
    return prepared(tiny_task("residual", prune=("weights",)), budget="encoded_bytes:0.4", bits=BITS)


@pytest.mark.parametrize("name", covering(AGENTS, ("closed_form", "evolution", "global", "ppo", "uniform")))
def test_every_agent_decides_on_pairs(name: str, problem: Problem, tmp_path: Path) -> None:
    search = instantiate_part(composed(f"agent={name}", *SHORT.get(name, ())), "agent")
    kept_of: list[tuple[int, ...]] = []
    evaluations = 30 if name == "sensitivity" else 20  # of single-group curves
    limited = problem.limited(
        evaluations, record=lambda outcome, *_: kept_of.append(outcome.plan.kept), folder=tmp_path
    )
    plan = search(limited, rng=np.random.default_rng(0))
    assert plan.kept in kept_of
    assert problem.projector.budget.meets(np.array(plan.kept))
    for kept in kept_of:
        assert all(units in group.levels for units, group in zip(kept, problem.structure.groups, strict=True))


def test_every_agent_is_tried_or_says_what_it_needs(problem: Problem, tmp_path: Path) -> None:
    for name in OTHERS:
        search = instantiate_part(composed(f"agent={name}"), "agent")
        with pytest.raises(ValueError, match=r"policy|block"):
            search(problem.limited(14, folder=tmp_path), rng=np.random.default_rng(0))


def test_projected_pairs_meet_the_budget_and_are_filled(problem: Problem) -> None:
    """No matrix could keep one more weight of each row, nor more bits."""
    cost, budget, rng = problem.costs["encoded_bytes"], problem.projector.budget, np.random.default_rng(0)
    for density in rng.random((20, len(problem.structure.groups))) + 0.01:
        kept = problem.projector.project(density)
        assert budget.meets(kept)
        for index, group in enumerate(problem.structure.groups):
            levels = np.array(group.levels)
            above = cost.along(kept, index, levels[levels > kept[index]])
            assert (above > budget.limit).all()


def test_a_plan_of_pairs_is_written_and_read_as_any_other(problem: Problem) -> None:
    plan = problem.structure.plan(problem.projector.project(np.ones(len(problem.structure.groups))))
    assert type(plan).from_json(plan.as_json()) == plan
    assert plan.as_json()["fc bits"]["units"] == 32
