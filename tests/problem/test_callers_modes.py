"""What a calling program has set in torch, and its threads, change no plan's score; nor does preparing change them."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch

from autoprune.callers_modes import plain_torch
from autoprune.problem.problem import Problem
from tests.tasks import prepared, tiny_task

MODES: dict[str, Any] = {
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "meta": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", enabled=False),
}


@pytest.fixture(scope="module")
def problem() -> Problem:
    return prepared(tiny_task("plain"))


def floor_score(problem: Problem) -> float:
    plan = problem.structure.plan(problem.projector.floor)
    return problem.objective.uncharged.evaluate([plan], whole=True)[0].score


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_of_the_caller_changes_nothing(mode: str, problem: Problem) -> None:
    context: AbstractContextManager[Any] = MODES[mode]()
    with context:
        other = prepared(tiny_task_outside())
        assert floor_score(other) == floor_score(problem)
        network = other.pruned(other.structure.plan(other.projector.floor))
        inside = torch.empty(1)
        assert inside.is_inference() == (mode == "inference")
        assert inside.is_meta == (mode == "meta")
    assert not any(parameter.is_inference() or parameter.is_meta for parameter in network.parameters())


def tiny_task_outside() -> Any:
    with plain_torch():
        return tiny_task("plain")


def test_one_task_is_prepared_in_several_threads(problem: Problem) -> None:
    """Preparing masks the task's own network for a while."""
    with ThreadPoolExecutor(4) as threads:
        scores = list(threads.map(lambda _: floor_score(prepared(problem.task)), range(4)))
    assert scores == [floor_score(problem)] * 4


def test_weights_that_nobody_can_change_are_refused() -> None:
    with torch.inference_mode(), pytest.raises(ValueError, match="inference_mode"):
        tiny_task("plain")
