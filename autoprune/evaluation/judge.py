"""How good a network's outputs are, against the targets and against the dense network's outputs."""

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.evaluation.outcome import Judged, Metrics
from autoprune.task.task import Forward, Loss, Metric, Role, Task, outputs_of

Score = Callable[[Metrics], float]
FloatArray = NDArray[np.float64]

BATCH = 100  # samples whose activations stay in a processor's cache: 500 at a time take twice as long
KEPT_WHOLE_BYTES = 128 * 2**20  # of the dense network's outputs; more of them are kept at half precision
COMPARED_BYTES = 8 * 2**20  # of outputs that are compared at a time


class Judge:
    """Judges networks on one data role; the dense network's outputs are computed once.

    Networks are judged in blocks of `task.block` samples: enough of them to compare two in pairs on a single batch.
    batch_size: samples per forward pass. Where the repair uses batch statistics, it is part of what is measured.
    """

    def __init__(self, task: Task, role: Role, *, batch_size: int = BATCH, dtype: torch.dtype = torch.float32) -> None:
        self.metric: Metric = task.metric
        self.loss: Loss = task.loss
        self.forward: Forward = task.forward
        self.block = task.block
        self.batches = [_proxy_batch(batch, dtype) for batch in role.inputs.split(batch_size)]
        self.targets = list(role.targets.split(batch_size))
        self.log_dense: list[Tensor] = []
        for batch in role.inputs.split(batch_size):
            outputs = outputs_of(task.model, _proxy_batch(batch, torch.float32), self.forward)
            if not torch.isfinite(outputs).all():
                raise ValueError("the dense network's outputs hold NaN or infinity; its weights or data may be broken")
            large = outputs.nbytes / len(batch) * len(role) > KEPT_WHOLE_BYTES
            self.log_dense.append(F.log_softmax(outputs, dim=-1).to(torch.float16 if large else torch.float32))

    @property
    def samples(self) -> int:
        return sum(len(targets) for targets in self.targets)

    def __call__(self, network: nn.Module) -> Metrics:
        """The network's metrics on the whole role. Raises FloatingPointError where its outputs are not finite."""
        rows = []
        for batch, targets, log_dense in zip(self.batches, self.targets, self.log_dense, strict=True):
            outputs = _finite(outputs_of(network, batch, self.forward))
            divergence, same = _compared(outputs, log_dense)
            values = (self.metric(outputs, targets), self.loss(outputs, targets), divergence.mean(), same.mean())
            rows.append([float(value) for value in values])
        share = np.array([len(targets) for targets in self.targets]) / self.samples
        accuracy, loss, kl, agreement = (share @ np.array(rows)).tolist()
        return Metrics(accuracy, loss, kl, agreement, samples=self.samples)

    def judge(self, network: nn.Module, start: int, stop: int) -> list[Judged]:
        """The network judged on batches start … stop - 1, one by one, in blocks of a few samples.

        Raises FloatingPointError where its outputs are not finite.
        """
        return [self._judged(network, batch) for batch in range(start, stop)]

    def _judged(self, network: nn.Module, batch: int) -> Judged:
        clock = time.perf_counter()
        outputs, targets = _finite(outputs_of(network, self.batches[batch], self.forward)), self.targets[batch]
        firsts = np.arange(0, len(targets), self.block)
        samples = np.diff(np.append(firsts, len(targets))).astype(np.int32)
        pairs = list(zip(outputs.split(self.block), targets.split(self.block), strict=True))
        rows = [np.array([float(of(*pair)) for pair in pairs]) for of in (self.metric, self.loss)]
        rows += [np.add.reduceat(values, firsts) / samples for values in _compared(outputs, self.log_dense[batch])]
        return Judged(np.array(rows, np.float32), samples, time.perf_counter() - clock)


def _compared(outputs: Tensor, log_dense: Tensor) -> tuple[FloatArray, FloatArray]:
    """Per sample: KL(dense ‖ network) and whether the top-1 output is the dense network's, averaged over positions.

    Of large vocabularies a part of the samples at a time: the intermediate results are several times the outputs.
    """
    samples = max(1, COMPARED_BYTES * len(outputs) // outputs.nbytes)
    parts = [_divergence(*pair) for pair in zip(outputs.split(samples), log_dense.split(samples), strict=True)]
    kl, agreement = (np.concatenate(values) for values in zip(*parts, strict=True))
    return kl, agreement


def _divergence(outputs: Tensor, log_dense: Tensor) -> tuple[FloatArray, FloatArray]:
    log_dense = log_dense.float()
    divergence = F.kl_div(F.log_softmax(outputs, dim=-1), log_dense, log_target=True, reduction="none").sum(dim=-1)
    same = (outputs.argmax(dim=-1) == log_dense.argmax(dim=-1)).double()
    kl, agreement = (v.double().view(len(v), -1).mean(dim=1).cpu().numpy() for v in (divergence, same))
    return kl, agreement


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
    if not torch.isfinite(outputs.sum(dim=-1)).all():  # of every output takes as much memory as they do
        raise FloatingPointError(f"{int((~torch.isfinite(outputs)).sum())} of its outputs are NaN or infinite")
    return outputs


def _proxy_batch(batch: Tensor, dtype: torch.dtype) -> Tensor:
    batch = batch.to(dtype) if batch.is_floating_point() else batch
    return batch.contiguous(memory_format=torch.channels_last) if batch.ndim == 4 else batch
