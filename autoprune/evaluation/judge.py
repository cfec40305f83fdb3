"""How good a network's outputs are, against the targets and against the dense network's outputs."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.evaluation.outcome import Metrics
from autoprune.task.task import Loss, Metric, Role, Task, first_outputs

Score = Callable[[Metrics], float]


class Judge:
    """Judges networks on one data role; the dense network's outputs are computed once.

    batch_size: samples per forward pass. Where the repair uses batch statistics, it is part of what is measured.
    """

    def __init__(self, task: Task, role: Role, *, batch_size: int = 500, dtype: torch.dtype = torch.float32) -> None:
        self.metric: Metric = task.metric
        self.loss: Loss = task.loss
        self.role = role
        self.batches = [_proxy_batch(batch, dtype) for batch in role.inputs.split(batch_size)]
        dense = self.outputs(task.model, [batch.float() for batch in self.batches])
        if not torch.isfinite(dense).all():
            raise ValueError("the dense network's outputs hold NaN or infinity; its weights or its data may be broken")
        self.log_dense = F.log_softmax(dense, dim=-1)
        self.top_dense = dense.argmax(dim=-1)

    def __call__(self, network: nn.Module) -> Metrics:
        """The network's metrics on the role. Raises FloatingPointError where its outputs are not finite."""
        outputs = self.outputs(network, self.batches)
        if not torch.isfinite(outputs).all():
            raise FloatingPointError(f"{int((~torch.isfinite(outputs)).sum())} of the outputs are NaN or infinite")
        log_outputs = F.log_softmax(outputs, dim=-1)
        divergence = F.kl_div(log_outputs, self.log_dense, log_target=True, reduction="none").sum(dim=-1)
        return Metrics(
            accuracy=float(self.metric(outputs, self.role.targets)),
            loss=float(self.loss(outputs, self.role.targets)),
            kl=divergence.mean().item(),
            agreement=(outputs.argmax(dim=-1) == self.top_dense).float().mean().item(),
            samples=len(self.role),
        )

    @staticmethod
    @torch.inference_mode()
    def outputs(network: nn.Module, batches: list[Tensor]) -> Tensor:
        return torch.cat([first_outputs(network(batch)).float() for batch in batches])


def accuracy(metrics: Metrics) -> float:
    """The task's metric as the score."""
    return metrics.accuracy


def loss(metrics: Metrics) -> float:
    """Minus the task's loss."""
    return -metrics.loss


def kl(metrics: Metrics) -> float:
    """Minus the divergence from the dense network's outputs: needs no labels, and is finer than accuracy."""
    return -metrics.kl


def agreement(metrics: Metrics) -> float:
    """How often the top-1 output is the dense network's."""
    return metrics.agreement


def _proxy_batch(batch: Tensor, dtype: torch.dtype) -> Tensor:
    batch = batch.to(dtype) if batch.is_floating_point() else batch
    return batch.contiguous(memory_format=torch.channels_last) if batch.ndim == 4 else batch
