"""A device: where networks will run, and what they cost there."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from torch import nn

from autoprune.cost.model import CostModel
from autoprune.device.timing import Timings
from autoprune.plan import PruningPlan
from autoprune.structure.groups import Group, Structure
from autoprune.task.task import Task

SLACK = 0.02  # of what a group's levels span: levels that differ by less cost the same


class Device(Protocol):
    """What conf/device names."""

    @property
    def name(self) -> str: ...

    def costs(self, task: Task, structure: Structure) -> dict[str, CostModel]:
        """name → cost of the task's plans on this device.

        Args:
            task: The trained network, its data and its metric.
            structure: The network's groups and layers.

        Raises:
            ValueError: It is not known.
        """
        ...

    def latencies(self, task: Task, networks: Mapping[str, nn.Module]) -> Timings | None:
        """Seconds that networks take there, [networks], or None for a device that is not at hand.

        Args:
            task: The trained network, its data and its metric.
            networks: What is run, on the task's example.
        """
        ...


def preferred_levels(cost: CostModel, structure: Structure, group: Group, *, slack: float = SLACK) -> tuple[int, ...]:
    """The levels at which no step of the cost's staircase is cut in half, ascending; the last one keeps all.

    Each is the highest level that costs less than the next one by more than `slack` times what all levels span, with
    all other groups whole. Where the cost grows with every unit by more than that, these are all levels.

    Args:
        cost: One that may have steps, such as a latency.
        structure: The network's groups.
        group: The one whose levels are asked for.
        slack: A fraction of what the group's levels span.
    """
    number, levels = structure.groups.index(group), np.array(group.levels, np.int64)
    costs = cost.along(structure.units, number, levels)
    least_gain = slack * float(costs.max() - costs.min())
    preferred = [len(levels) - 1]
    for index in range(len(levels) - 2, -1, -1):
        if costs[index] < costs[preferred[-1]] - least_gain:
            preferred.append(index)
    return tuple(int(levels[index]) for index in reversed(preferred))


def on_steps(structure: Structure, cost: CostModel) -> Structure:
    """The same groups with preferred levels only; a group that would have one level keeps its lowest one as well.

    Args:
        structure: The network's groups and layers.
        cost: The latency of a plan.
    """
    groups = []
    for group in structure.groups:
        levels = preferred_levels(cost, structure, group)
        groups.append(replace(group, levels=levels if len(levels) > 1 else (group.levels[0], *levels)))
    return replace(structure, groups=tuple(groups))


def predicted_and_measured(
    device: Device, task: Task, latency: CostModel, plans: Mapping[str, PruningPlan], networks: Mapping[str, nn.Module]
) -> dict[str, Any]:
    """What was predicted of every network and what it took, in ms, as JSON values; None where it is not at hand.

    Args:
        device: The device.
        task: The trained network, its data and its metric.
        latency: The latency of plans, in milliseconds.
        plans: What networks were made by, in the same order.
        networks: What is run, on the task's example.
    """
    predicted = {name: float(latency(np.array(plan.kept))) for name, plan in plans.items()}
    timings = device.latencies(task, {name: networks[name] for name in plans})
    least = [None] * len(plans) if timings is None else (1e3 * timings.minimum).tolist()
    median = [None] * len(plans) if timings is None else (1e3 * timings.median).tolist()
    networks_ms = {
        name: {"predicted": predicted[name], "least": least[index], "median": median[index]}
        for index, name in enumerate(plans)
    }
    return {"name": device.name, "latency_ms": networks_ms}
