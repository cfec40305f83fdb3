"""How a goal's masks are chosen, and how many weights they keep in the end."""

import math

from torch import nn

from autoprune.schedule.channel_masks import ChannelMasking
from autoprune.schedule.decision import PruningGoal
from autoprune.schedule.weight_masks import WeightMasking, masked_layers
from autoprune.task.task import Task

Masking = WeightMasking | ChannelMasking


def masking_of(task: Task, model: nn.Module, goal: PruningGoal) -> Masking:
    """Returns what chooses the masks of the goal's granularity.

    Args:
        task: How the network is called, and layers that stay whole.
        model: The network.
        goal: Its granularity, and more layers that stay dense.

    Raises:
        ValueError: There is no such granularity, or nothing can go by it.
    """
    if goal.granularity == "channel":
        return ChannelMasking(task, model, keep=goal.keep)
    layers = masked_layers(task, model, keep=goal.keep, granularity=goal.granularity)
    return WeightMasking(layers, model, granularity=goal.granularity)


def target_count(masking: Masking, goal: PruningGoal) -> int:
    """Returns how many weights stay in the end.

    Args:
        masking: What can stay, and has to.
        goal: The density.

    Raises:
        ValueError: So few cannot stay, or no density is said where none follows.
    """
    exact = isinstance(masking, WeightMasking) and masking.pattern is not None
    wanted = masking.least if goal.density is None else round(goal.density * masking.total)
    if goal.density is None and not exact:
        raise ValueError("density is missing: how much of the weights stays, in (0, 1]; only N:M has one of its own")
    if wanted < masking.least or (exact and wanted != masking.least):
        fixed = sum(layer.weights for layer in masking.layers if layer.fixed)
        why = f" ({fixed} are in layers that stay dense)" if fixed else ""
        rule = "exactly" if exact else "at least"
        raise ValueError(
            f"density={goal.density:g} keeps {wanted} of {masking.total} weights, but with "
            f"granularity={goal.granularity} {rule} {masking.least} of them stay{why}; ask for a density of "
            f"{rule} {math.ceil(masking.least / masking.total * 1e6) / 1e6:g}" + (", or for none" if exact else "")
        )
    return wanted
