"""How good a network's outputs are, against the targets and against the dense network's outputs."""

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.evaluation.outcome import Judged, Metrics
from autoprune.task.task import Loss, Metric, Role, Task, first_outputs

Score = Callable[[Metrics], float]
FloatArray = NDArray[np.float64]

BLOCK = 10  # samples that are judged together: enough blocks to compare two networks in pairs on a single batch


class Judge:
    """Judges networks on one data role; the dense network's outputs are computed once.

    batch_size: samples per forward pass. Where the repair uses batch statistics, it is part of what is measured.
    """

    def __init__(self, task: Task, role: Role, *, batch_size: int = 500, dtype: torch.dtype = torch.float32) -> None:
        self.metric: Metric = task.metric
        self.loss: Loss = task.loss
        self.batches = [_proxy_batch(batch, dtype) for batch in role.inputs.split(batch_size)]
        self.targets = list(role.targets.split(batch_size))
        dense = [outputs_of(task.model, _proxy_batch(batch, torch.float32)) for batch in role.inputs.split(batch_size)]
        if not all(torch.isfinite(outputs).all() for outputs in dense):
            raise ValueError("the dense network's outputs hold NaN or infinity; its weights or its data may be broken")
        self.log_dense = [F.log_softmax(outputs, dim=-1) for outputs in dense]

    @property
    def samples(self) -> int:
        return sum(len(targets) for targets in self.targets)

    def __call__(self, network: nn.Module) -> Metrics:
        """The network's metrics on the whole role. Raises FloatingPointError where its outputs are not finite."""
        outputs = torch.cat([_finite(outputs_of(network, batch)) for batch in self.batches])
        targets, (kl, agreement) = torch.cat(self.targets), _compared(outputs, torch.cat(self.log_dense))
        accuracy, loss = float(self.metric(outputs, targets)), float(self.loss(outputs, targets))
        return Metrics(accuracy, loss, float(kl.mean()), float(agreement.mean()), samples=len(targets))

    def judge(self, network: nn.Module, start: int, stop: int) -> list[Judged]:
        """The network judged on batches start … stop - 1, one by one, in blocks of BLOCK samples.

        Raises FloatingPointError where its outputs are not finite.
        """
        return [self._judged(network, batch) for batch in range(start, stop)]

    def _judged(self, network: nn.Module, batch: int) -> Judged:
        clock = time.perf_counter()
        outputs, targets = _finite(outputs_of(network, self.batches[batch])), self.targets[batch]
        firsts = np.arange(0, len(targets), BLOCK)
        samples = np.diff(np.append(firsts, len(targets))).astype(np.int32)
        pairs = list(zip(outputs.split(BLOCK), targets.split(BLOCK), strict=True))
        rows = [np.array([float(of(*pair)) for pair in pairs]) for of in (self.metric, self.loss)]
        rows += [np.add.reduceat(values, firsts) / samples for values in _compared(outputs, self.log_dense[batch])]
        return Judged(np.array(rows, np.float32), samples, time.perf_counter() - clock)


def _compared(outputs: Tensor, log_dense: Tensor) -> tuple[FloatArray, FloatArray]:
    """Per sample: KL(dense ‖ network) and whether the top-1 output is the dense network's, averaged over positions."""
    divergence = F.kl_div(F.log_softmax(outputs, dim=-1), log_dense, log_target=True, reduction="none").sum(dim=-1)
    same = (outputs.argmax(dim=-1) == log_dense.argmax(dim=-1)).double()
    kl, agreement = (v.double().view(len(v), -1).mean(dim=1).cpu().numpy() for v in (divergence, same))
    return kl, agreement


@torch.inference_mode()
def outputs_of(network: nn.Module, inputs: Tensor) -> Tensor:
    return first_outputs(network(inputs)).float()


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


def _finite(outputs: Tensor) -> Tensor:
    if not torch.isfinite(outputs).all():
        raise FloatingPointError(f"{int((~torch.isfinite(outputs)).sum())} of its outputs are NaN or infinite")
    return outputs


def _proxy_batch(batch: Tensor, dtype: torch.dtype) -> Tensor:
    batch = batch.to(dtype) if batch.is_floating_point() else batch
    return batch.contiguous(memory_format=torch.channels_last) if batch.ndim == 4 else batch
