"""The networks of the study, each studied once, and what is known of them."""

import functools
from pathlib import Path
from typing import Any

from autoprune.agent.agent_spec import AgentSpec
from autoprune.cli.parts import named_task
from autoprune.cost.budget import Budget, parse_budget
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem
from autoprune.task.variants import Family, Images, variant
from autoprune.transfer.held_out import reference_plan
from autoprune.transfer.studied_network import StudiedNetwork
from experiments.cells import kept
from experiments.configuration import composed, instantiate_part

FAMILIES: tuple[Family, ...] = ("residual", "plain", "depthwise", "dense")
SHIPPED = {"residual": "fashion_resnet20", "plain": "fashion_plain20", "depthwise": "fashion_mobilenet"}
LEARNED = 6  # variants of a family and kind of images that are trained on
UNSEEN: tuple[tuple[Images, int], ...] = (
    ("digits", 20),
    ("digits", 21),
    ("fashion", 20),
)  # that are tested on, beside the shipped ones
BUDGETS = ("macs:0.2", "macs:0.4")
BEST = 200  # evaluations of the search whose best plan counts as the best known, where nothing better was found


@functools.cache
def learned(family: Family) -> list[StudiedNetwork]:
    """What policies learn from."""
    kinds: tuple[Images, ...] = ("digits", "fashion")
    return [
        _studied(variant(family=family, number=number, images=images)) for images in kinds for number in range(LEARNED)
    ]


@functools.cache
def unseen(family: Family) -> list[StudiedNetwork]:
    """What they are tried on where the family is left out."""
    tasks = [variant(family=family, number=number, images=images) for images, number in UNSEEN]
    return [*([named(SHIPPED[family])] if family in SHIPPED else []), *map(_studied, tasks)]


@functools.cache
def named(task: str) -> StudiedNetwork:
    return _studied(named_task(task))


def _studied(task: Any) -> StudiedNetwork:
    return StudiedNetwork.study(Problem.prepare(task))


def budget_of(network: StudiedNetwork, text: str) -> Budget:
    return parse_budget(text, network.problem.costs, network.problem.structure)


def best_of(cells: Path, network: StudiedNetwork, text: str) -> PruningPlan:
    """What evolution finds; kept between runs of the command."""
    budget = budget_of(network, text)
    name = f"best_{network.problem.task.name}_{text.replace(':', '_')}"
    found = kept(cells, name, lambda: {"kept": reference_plan(network, budget, evaluations=BEST, seed=0).kept})
    return network.problem.structure.plan(found["kept"])


def agent_of(overrides: list[str]) -> AgentSpec:
    """conf/agent/carried.yaml as `autoprune train` changes it."""
    found: AgentSpec = instantiate_part(composed(*overrides, job="train"), "agent").keywords["agent"]
    return found
