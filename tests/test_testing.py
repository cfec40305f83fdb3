"""Everything that comes along conforms, and what does not is told which rule it breaks."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autoprune  # noqa: F401  registers the environments
from autoprune import testing
from autoprune.cost.observed import NetworkCosts
from autoprune.importance.criterion import CriterionInputs
from autoprune.importance.random_scores import random
from autoprune.recover.recovery import no_recovery
from autoprune.search import prior_plan
from autoprune.structure.graph import find_structure
from autoprune.tracking import NoTracker
from experiments.configuration import composed, instantiate_part
from tests.sampling import covering
from tests.search.searches import AGENTS, search, short

TASK = testing.small_task()
STRUCTURE = find_structure(TASK.model, TASK.example_input)
MACS = NetworkCosts(TASK.model, STRUCTURE, TASK.example_input).macs()


@pytest.mark.parametrize(
    "name",
    covering(
        ["annealing", "closed_form", "evolution", "global", "greedy", "random", "sensitivity", "spdy"],
        ("closed_form", "evolution", "global"),
    ),
)
def test_searches_conform(name: str) -> None:
    testing.check_search(instantiate_part(composed(f"agent={name}"), "agent"), evaluations=40)


@pytest.mark.parametrize("name", covering(AGENTS, ("edit_ppo",)))
def test_agents_conform(name: str) -> None:
    testing.check_search(search(name, **short(name)), evaluations=40)


@pytest.mark.slow
def test_the_transferable_agent_conforms() -> None:
    testing.check_search(instantiate_part(composed("agent=transferable"), "agent"), evaluations=40)


@pytest.mark.parametrize("name", ["default", "fpgm", "random", "taylor", "wanda"])
def test_criteria_conform(name: str) -> None:
    testing.check_criterion(instantiate_part(composed(f"importance={name}"), "importance"))


@pytest.mark.parametrize("name", ["distill", "fine_tune"])
def test_recoveries_conform(name: str) -> None:
    testing.check_recovery(instantiate_part(composed(f"recover={name}", "recover.steps=3"), "recover"))
    testing.check_recovery(no_recovery)


def test_devices_costs_trackers_and_tasks_conform() -> None:
    testing.check_device(instantiate_part(composed("device=microcontroller"), "device"))
    testing.check_cost_model(MACS, STRUCTURE)
    testing.check_tracker(instantiate_part(composed("tracking=none"), "tracking"))
    testing.check_task(TASK)


@pytest.mark.parametrize("prior", ["closed_form", "sensitivity"])  # by default: tests/env/test_public_environments.py
@pytest.mark.parametrize("name", ["Layerwise", "OneShot", "Edit"])
def test_environments_conform(name: str, prior: str) -> None:
    testing.check_environment(gymnasium.make(f"autoprune/{name}-v0", task=TASK, prior=prior))


def too_much(problem: Any, *, rng: Any) -> Any:
    problem.objective.evaluate([problem.structure.dense])
    return problem.structure.dense


def another(problem: Any, *, rng: Any) -> Any:
    prior_plan.search(problem, rng=rng, start="uniform")
    return problem.structure.plan(problem.structure.floor)


def by_the_process(problem: Any, *, rng: Any) -> Any:
    np.random.random()
    return prior_plan.search(problem, rng=rng, start="uniform")


def forgetful(problem: Any, *, rng: Any, state: np.random.Generator = np.random.default_rng(0)) -> Any:  # noqa: B008
    plan = problem.structure.plan(problem.projector.project(state.uniform(0.1, 1, len(problem.structure.groups))))
    problem.objective.evaluate([plan])
    return plan


def spendthrift(problem: Any, *, rng: Any) -> Any:
    plan = prior_plan.search(problem, rng=rng, start="uniform")
    if problem.objective.limit < 5:
        raise ValueError("too few")
    return plan


class Alone:
    """A cost that is another one among others."""

    name, unit = "alone", "MACs"

    def __call__(self, kept: Any) -> Any:
        costs = MACS(kept)
        return costs + 1 if np.ndim(costs) else costs

    def along(self, kept: Any, group: int, levels: Any) -> Any:
        return MACS.along(kept, group, levels)


class Crooked(Alone):
    """A cost whose `along` is another one."""

    def __call__(self, kept: Any) -> Any:
        return MACS(kept)

    def along(self, kept: Any, group: int, levels: Any) -> Any:
        return 2 * super().along(kept, group, levels)


def trained_in_place(network: nn.Module, task: Any, **_: Any) -> nn.Module:
    with torch.no_grad():
        next(network.parameters()).add_(1)
    return no_recovery(network, task, teacher=None, generator=torch.Generator())


def trained_on_test(network: nn.Module, task: Any, *, on_step: Any, **_: Any) -> nn.Module:
    loss = task.loss(task.forward(network, task.data.test.inputs), task.data.test.targets)
    on_step(1, 1, loss.item())
    return network


def changing(given: CriterionInputs) -> dict[str, Tensor]:
    with torch.no_grad():
        next(given.model.parameters()).add_(1)
    return random(given)


def incomplete(given: CriterionInputs) -> dict[str, Tensor]:
    return dict(list(random(given).items())[1:])


class Silent(NoTracker):
    """A tracker that stumbles over what is no number."""

    def log(self, metrics: Any, *, axis: Any, step: int) -> None:
        assert all(value is not None and np.isfinite(value) for value in metrics.values()), "None is no number"


BROKEN: list[tuple[Callable[..., None], Any, str]] = [
    (testing.check_search, too_much, "exceeds the budget"),
    (testing.check_search, another, "evaluates the plan that it returns"),
    (testing.check_search, by_the_process, "numpy's global generator"),
    (testing.check_search, forgetful, "the same seed gives the same plans"),
    (testing.check_search, spendthrift, "refused before anything is charged"),
    (testing.check_criterion, changing, "was changed"),
    (testing.check_recovery, trained_in_place, "was changed"),
    (testing.check_recovery, trained_on_test, "does it see another role than train"),
    (testing.check_recovery, lambda network, task, **_: no_recovery(network, task, **_).train(), "in eval mode"),
    (partial(testing.check_cost_model, structure=STRUCTURE), Alone(), "the same alone and among others"),
    (partial(testing.check_cost_model, structure=STRUCTURE), Crooked(), "`along` says something else"),
    (testing.check_tracker, lambda folder, **_: Silent(), "None is no number"),
]


@pytest.mark.parametrize(("check", "broken", "rule"), BROKEN)
def test_what_breaks_a_rule_is_told_which(check: Callable[..., None], broken: Any, rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check(broken)


def test_a_criterion_without_a_group_is_refused() -> None:
    with pytest.raises(ValueError, match="must score every group"):
        testing.check_criterion(incomplete)


def test_an_environment_that_hides_what_it_executed_is_refused(tmp_path: Path) -> None:
    env = gymnasium.make("autoprune/OneShot-v0", task=TASK)
    inner: Any = env.unwrapped
    step = inner.step

    def outside(action: Any) -> Any:
        *rest, info = step(action)
        return *rest, info | {"executed_action": np.full(inner.action_space.shape, 2.0, np.float32)}

    inner.step = outside
    with pytest.raises(AssertionError, match="executed_action is an action"):
        testing.check_environment(env)
