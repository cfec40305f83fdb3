"""What masks and bookkeeping cost: steps of the engine beside steps of a plain training loop, by turns."""

import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from autoprune.schedule.decision import Decision, PruningGoal
from autoprune.schedule.engine import PruningRun
from autoprune.schedule.masked_training import TrainingRecipe
from autoprune.task.task import Role, Task

TURNS, STEPS = 15, 20  # of each loop, and steps in a turn
DENSITY = 0.1


def overhead_rows(name: str, task: Task, recipe: TrainingRecipe) -> list[dict[str, Any]]:
    """Seconds of a step in each turn, of the engine at 10 % of the weights and of the plain loops.

    Args:
        name: Of the network.
        task: Network and training images.
        recipe: Of both; SGD without bf16.
    """
    goal = PruningGoal(density=DENSITY, steps=10 * TURNS * STEPS, counted="steps", start="initial")
    run = PruningRun(task, goal, recipe=recipe)
    run.decide(Decision(density=DENSITY))
    loops: dict[str, Callable[[int], object]] = {
        "engine": run.train,
        "plain": plain_loop(copy.deepcopy(task.model), task.data.train, recipe),
        "fused": plain_loop(copy.deepcopy(task.model), task.data.train, recipe, fused=True),
    }
    seconds: dict[str, list[float]] = {loop: [] for loop in loops}
    for turn in range(TURNS + 1):
        for loop, train in loops.items():
            started = time.perf_counter()
            train(STEPS)
            if turn:  # the first warms up
                seconds[loop].append((time.perf_counter() - started) / STEPS)
    ratios, fused = (np.array(seconds["engine"]) / np.array(seconds[loop]) for loop in ("plain", "fused"))
    return [
        {
            "network": name,
            "milliseconds": {loop: [round(1e3 * each, 4) for each in values] for loop, values in seconds.items()},
            "ratio": float(np.median(ratios)),
            "quartiles": [float(q) for q in np.quantile(ratios, (0.25, 0.75))],
            "ratio_to_fused": float(np.median(fused)),
            "ratio_of_least": min(seconds["engine"]) / min(seconds["plain"]),
        }
    ]


def plain_loop(network: nn.Module, role: Role, recipe: TrainingRecipe, *, fused: bool = False) -> Callable[[int], None]:
    """Returns a function that trains for so many steps, as one writes it without a library.

    Args:
        network: Trained in place.
        role: Images and labels.
        recipe: Batches and SGD.
        fused: Whether SGD makes its step in one pass, as that of the engine does.
    """
    optimizer = torch.optim.SGD(
        network.parameters(),
        recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=True,
        fused=fused,
    )
    order = torch.randperm(len(role))
    size, position = recipe.batch_size, 0

    def train(steps: int) -> None:
        nonlocal order, position
        network.train()
        for _ in range(steps):
            if position + size > len(role):
                order, position = torch.randperm(len(role)), 0
            rows = order[position : position + size]
            position += size
            loss = F.cross_entropy(network(role.inputs[rows]), role.targets[rows])
            optimizer.zero_grad()
            loss.backward()
            loss.item()  # as whoever prints it does
            optimizer.step()

    return train
