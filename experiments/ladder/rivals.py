"""Torch-Pruning's global pruning (arXiv 2301.12900), as its users call it, with the criterion that is best here."""

import copy
import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch_pruning
from torch import nn

from autoprune.evaluation.judge import kl
from autoprune.plan import PruningPlan
from autoprune.repair.repair import measure_batch_norms
from autoprune.task.task import Task
from experiments.ladder.ready import Ready, ready
from experiments.ladder.stages import Cell

STEPS = 400  # in which it removes all that it may; it is stopped where the budget is met
WAYS = {
    "": (False, 0.05),
    ", isomorphic": (True, 0.1),
}  # its ranking among equal layers only; least share of units left
CRITERIA: dict[str, Callable[[], Any]] = {
    "l1": lambda: torch_pruning.importance.GroupMagnitudeImportance(p=1),
    "l2": lambda: torch_pruning.importance.GroupMagnitudeImportance(p=2),
    "lamp": torch_pruning.importance.LAMPImportance,
    "batch_norm": torch_pruning.importance.BNScaleImportance,
    "fpgm": torch_pruning.importance.FPGMImportance,
    "taylor": torch_pruning.importance.GroupTaylorImportance,
}


@functools.cache
def rival(cell: Cell) -> tuple[str, PruningPlan, nn.Module, float]:
    """The criterion and way that are best on held-out samples, its widths, the network, and its test accuracy at first.

    BatchNorm's statistics are measured again on the calibration role, without which nothing is left of most of them.
    """
    at = ready(cell)
    task, best = at.problem.task, None
    for way, name in itertools.product(WAYS, CRITERIA):
        network = globally_pruned(at, CRITERIA[name](), *WAYS[way])
        as_it_comes = at.test(network).accuracy
        measure_batch_norms(network, task.data.calibration, task.forward)
        found = (kl(at.held_out(network)), name + way, network, as_it_comes)
        best = found if best is None or found[0] > best[0] else best
    assert best is not None
    _, name, network, as_it_comes = best
    return name, widths(at, network), network, as_it_comes


def globally_pruned(at: Ready, criterion: Any, isomorphic: bool, left: float) -> nn.Module:
    """The network at the first of its steps that meets the budget.

    Args:
        at: The cell.
        criterion: Torch-Pruning's.
        isomorphic: Whether units are ranked among those of like layers only (arXiv 2407.04616).
        left: Share of a layer's units that stays at least: it would remove whole layers else.
    """
    problem = at.problem
    task, network = problem.task, copy.deepcopy(problem.task.model).eval().requires_grad_(True)
    linear = {name for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    outputs = [network.get_submodule(name) for name in linear - set(problem.structure.names)]  # the classifier
    _gradients(network, task)
    pruner = torch_pruning.pruner.BasePruner(
        network,
        task.example_input,
        importance=criterion,
        global_pruning=True,
        pruning_ratio=1 - left,
        max_pruning_ratio=1 - left,
        isomorphic=isomorphic,
        iterative_steps=STEPS,
        ignored_layers=outputs,
    )
    while not problem.projector.budget.meets(np.array(widths(at, network).kept)):
        if pruner.current_step == STEPS:
            raise RuntimeError(f"Torch-Pruning does not get down to {problem.projector.budget.text}")
        pruner.step()
    network.zero_grad()
    return network.eval()


def _gradients(network: nn.Module, task: Task) -> None:
    """Of the task's loss on the calibration role, which Taylor's criterion reads."""
    role = task.data.calibration
    for inputs, targets in zip(role.inputs.split(100), role.targets.split(100), strict=True):
        task.loss(task.forward(network, inputs), targets).backward()


def widths(at: Ready, network: nn.Module) -> PruningPlan:
    """What every group has left."""
    structure = at.problem.structure
    layers = [network.get_submodule(name) for name in structure.names]
    return structure.plan(
        np.array([of.out_features if isinstance(of, nn.Linear) else of.out_channels for of in layers])
    )
