"""A policy that a search leaves plans for the network that it was trained on, and for no other."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from autoprune.agent.policy_file import sealed
from autoprune.cli.composition import composed
from autoprune.cli.parts import instantiate_part
from autoprune.evaluation.metered import POLICY
from autoprune.problem.problem import Problem
from autoprune.problem.spec import ProblemSpec, StructureSettings
from autoprune.task.task import Task
from autoprune.testing import small_task
from autoprune.transfer.policy import Policy
from tests.commands import run_python
from tests.search.searches import AGENTS, search, short
from tests.tasks import tiny_task

QUICK = ("model_based", "dqn")


@pytest.mark.parametrize(
    "name", [each if each in QUICK else pytest.param(each, marks=pytest.mark.slow) for each in [*AGENTS, "model_based"]]
)
def test_every_agents_policy_plans_for_its_own_network(name: str, tmp_path: Path) -> None:
    own: list[Any] = []
    problem = Problem.prepare(small_task(), ProblemSpec()).limited(
        40, folder=tmp_path, record=lambda outcome, n, phase: own.append(outcome) if phase == POLICY else None
    )
    search(name, **short(name))(problem, rng=np.random.default_rng(0))
    policy = Policy.load(tmp_path)
    planned = policy.plan(small_task())
    best = max(reversed(own), key=lambda outcome: outcome.reward)
    assert planned.outcomes["policy"].plan == best.plan, "what is saved makes the best of its own plans"
    assert planned.scores.keys() == {"policy", "sensitivity", "uniform"}
    assert planned.chosen == max(planned.scores, key=lambda each: planned.scores[each])
    assert policy.training.units == tuple(problem.structure.units.tolist())
    other = policy.plan(small_task(), "macs:0.7")
    assert other.problem.projector.budget.meets(np.array(other.outcomes["policy"].plan.kept))
    assert other.problem.projector.budget.relative == pytest.approx(0.7, abs=0.01)
    with pytest.raises(ValueError, match=r"was trained on small, whose groups are .* and fits no other network"):
        policy.plan(tiny_task(), "macs:0.5")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which PPO has left its policy."""
    folder = tmp_path_factory.mktemp("run")
    problem = Problem.prepare(small_task(), ProblemSpec()).limited(30, folder=folder)
    search("ppo")(problem, rng=np.random.default_rng(0))
    return folder


def wider() -> Task:
    """Groups of the same names, of which one has other units."""
    task = small_task()
    layers = list(task.model.children())
    layers[0], layers[1], layers[3] = (
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.Conv2d(16, 12, 3, padding=1),
    )
    return Task(nn.Sequential(*layers).eval(), task.example_input, task.data, name="wider", budget="macs:0.5")


def test_a_wider_network_is_another_one(run: Path) -> None:
    with pytest.raises(ValueError, match=r"whose groups are {'0': 8, .* fits no other network; wider has {'0': 16, "):
        Policy.load(run).plan(wider())


def test_another_cost_is_a_guess_and_a_problem_has_its_settings(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    policy = Policy.load(run)
    spec = ProblemSpec(budget="params:0.4", structure=StructureSettings(round_to=1))
    problem = Problem.prepare(small_task(), spec)
    planned = policy.plan(problem)
    assert planned.problem is problem
    assert planned.evaluations == policy.plan(problem).evaluations, "of this plan, not of those before it"
    assert problem.projector.budget.meets(np.array(planned.plan.kept))
    assert "trained under macs:0.5, and does not see which cost" in caplog.text
    with pytest.raises(ValueError, match=r"'macs:0.5'"):
        policy.plan(problem, "macs:0.5")
    caplog.clear()
    policy.plan(small_task(), "macs:0.4")
    assert "trained under macs:0.5 and sees the budget, but macs:0.4 was never practised" in caplog.text
    caplog.clear()
    policy.plan(small_task(), "macs:0.5")
    assert not caplog.text


def test_a_run_without_a_policy_says_whose_it_is(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"agent": "evolution"}))
    with pytest.raises(ValueError, match="agent=evolution"):
        Policy.load(tmp_path)


Change = Callable[[dict[str, Any]], Any]
CLAIMS: dict[str, Change] = {
    "an environment has no option 'evil'": lambda record: record["training"]["environment"].update(evil=1),
    "mode must be layerwise, one_shot or edit": lambda record: record["training"]["environment"].update(mode="x"),
    "environment needs mode": lambda record: record["training"]["environment"].pop("mode"),
    "has the observation space": lambda record: record["training"]["environment"].update(observation="budget"),
    r"training.environment must be .*got \[1\]": lambda record: record["training"].update(environment=[1]),
    r"training.units .*whole number.*": lambda record: record["training"].update(units=["a"]),
    "does not see the budget": lambda record: record["training"].update(
        features=["depth"], budgets={"macs": [0.2, 0.3]}
    ),
    "whose groups are": lambda record: record["training"].update(groups=["a"]),
}


@pytest.mark.parametrize("says", CLAIMS)
def test_a_sealed_record_that_claims_something_else_is_a_sentence(says: str, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "policy", tmp_path / "policy")
    path = tmp_path / "policy" / "policy.json"
    record = json.loads(path.read_text())
    CLAIMS[says](record)
    weights = (tmp_path / "policy" / "policy.safetensors").read_bytes()
    path.write_text(json.dumps(sealed(record, weights=weights)))
    with pytest.raises(ValueError, match=says):
        Policy.load(tmp_path).plan(small_task())


FRESH = """
import sys
from autoprune import Policy
from autoprune.testing import small_task
print(Policy.load(sys.argv[1]).plan(small_task()).outcomes["policy"].plan.kept)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["recurrent_ppo", "critic_guided"])
def test_another_process_makes_the_same_plan(name: str, tmp_path: Path) -> None:
    problem = Problem.prepare(small_task(), ProblemSpec()).limited(60, folder=tmp_path)
    search(name, **short(name))(problem, rng=np.random.default_rng(0))
    here = Policy.load(tmp_path).plan(small_task()).outcomes["policy"].plan.kept
    done = run_python(FRESH, str(tmp_path))
    assert done.stdout.strip() == str(here), done.stderr


def test_one_policy_serves_the_budgets_of_a_command(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    quick = [f"agent.imagination.{key}" for key in ("updates=1", "candidates_per_evaluation=4", "imitation=10")]
    settings = composed("config", ["agent=model_based", "agent.budgets=[macs:0.3,macs:0.7]", *quick])
    problem = Problem.prepare(small_task(), ProblemSpec(budget="macs:0.5")).limited(50, folder=tmp_path)
    instantiate_part(settings, "agent")(problem, rng=np.random.default_rng(0))
    policy = Policy.load(tmp_path)
    assert policy.training.budget.startswith("macs:0.5; macs:0.3; macs:0.7")
    assert policy.training.budgets["macs"] == pytest.approx((0.3, 0.7), abs=0.01)
    for budget in ("macs:0.3", "macs:0.45", "macs:0.7"):
        planned = policy.plan(small_task(), budget)
        assert "never practised" not in caplog.text
        plan, projector = np.array(planned.outcomes["policy"].plan.kept), planned.problem.projector
        assert projector.budget.meets(plan)
        assert (projector.fill(plan, plan + 1.0) == plan).all(), "nothing more fits"
    other = composed("config", ["agent=model_based", "agent.budgets=[params:0.5]"])
    with pytest.raises(ValueError, match=r"agent.budgets.*'macs:0.5'"):
        instantiate_part(other, "agent")(problem.limited(50), rng=np.random.default_rng(0))


@pytest.mark.slow
def test_a_transferable_policy_of_one_search_says_under_which_budget_it_was_trained(tmp_path: Path) -> None:
    problem = Problem.prepare(small_task(), ProblemSpec(budget="macs:0.5")).limited(40, folder=tmp_path)
    search("transferable")(problem, rng=np.random.default_rng(0))
    policy = Policy.load(tmp_path)
    assert policy.plan(small_task(), "macs:0.5", candidates=2).scores.keys() == {"policy", "sensitivity", "uniform"}
    with pytest.raises(ValueError, match=r"was trained under macs:0.5, and 'macs:0.7' is 0.7\d\d of dense; ask"):
        policy.plan(small_task(), "macs:0.7")
