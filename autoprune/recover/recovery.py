"""The seam of this room: a recovery trains a pruned network again. And the one that does not."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn

from autoprune.task.copies import copied
from autoprune.task.task import Task

OnStep = Callable[[int, int, float], None]  # (step, steps, loss)


class Recovery(Protocol):
    """(pruned network, task) → a trained network of the same shape, in eval mode; what came in is unchanged.

    It sees the task's train role only. teacher: the dense network, to learn from. generator: on the data's device.
    """

    def __call__(
        self,
        network: nn.Module,
        task: Task,
        *,
        teacher: nn.Module | None,
        generator: torch.Generator,
        on_step: OnStep | None = None,
    ) -> nn.Module: ...


def no_recovery(
    network: nn.Module,
    task: Task,
    *,
    teacher: nn.Module | None,
    generator: torch.Generator,
    on_step: OnStep | None = None,
) -> nn.Module:
    """The network as pruning left it: the post-training regime.

    Args:
        network: The pruned network, which stays as it is.
        task: The trained network, its data and its metric.
        teacher: The dense network to learn from; None where nothing is.
        generator: Draws all that is random here.
        on_step: Called with (step, steps, loss) after every step.
    """
    return copied(network).eval()
