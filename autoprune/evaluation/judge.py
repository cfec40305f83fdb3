"""How good a network's outputs are, against the targets and against the dense network's outputs."""

import math
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.evaluation.outcome import Judged, Metrics
from autoprune.task.counted_positions import counted_outputs
from autoprune.task.default_metrics import DefaultLoss, DefaultMetric, NeedsLabels
from autoprune.task.language import token_accuracy
from autoprune.task.outputs import CATEGORICAL, OutputKind, combined
from autoprune.task.samples import (
    Samples,
    cut,
    images_last,
    joined_samples,
    leaves,
    mapped,
    number_of,
    release_between,
    rows,
    samples_within,
)
from autoprune.task.task import Forward, Metric, Role, Task, outputs_of

Score = Callable[[Metrics], float]
FloatArray = NDArray[np.float64]
Compared = tuple[FloatArray, FloatArray]  # divergence and agreement of each sample

BATCH = 100  # samples whose activations stay in a processor's cache: 500 at a time take twice as long
KEPT_WHOLE_BYTES = 128 * 2**20  # of the dense network's outputs; more of them are kept at half precision
COMPARED_BYTES = 8 * 2**20  # of outputs that are compared at a time
TRIED_BYTES = 32 * 2**20  # of outputs that a metric is tried on, to see whether it is a mean over samples
MEAN_TOLERANCE = 1e-4


class Judge:
    """Judges networks on one data role; the dense network's outputs are computed once.

    Networks are judged in blocks of `task.block` samples: enough of them to compare two in pairs on a single batch.
    A metric that is no mean over samples (AUC, F1, a correlation) is computed of all of the role's samples at once: its
    value stands in the blocks of the last batch, and before that it is NaN. Where there are no targets, accuracy and
    loss are NaN. Positions that the task's loss leaves out, such as padding, do not count, and each sample as much as
    it has others, so that means over samples are means over positions.

    Attributes:
        batches: The inputs, batch by batch; a last batch of one sample joins the one before it.
        targets: Those of each batch, None where there are none.
        whole_metric: The metric is no mean over samples.
    """

    def __init__(
        self, task: Task, role: Role, *, batch_size: int | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        """Runs the dense network on the role.

        Args:
            task: Its model is the dense network.
            role: What networks are judged on.
            batch_size: Samples per forward pass; where the repair uses batch statistics, part of what is measured. None
                is 100, or fewer where samples are large.
            dtype: Of the inputs.

        Raises:
            ValueError: The dense network's outputs are not finite.
        """
        self.task, self.block, self.samples = task, task.block, len(role)
        self.forward: Forward = task.forward
        if batch_size is None:
            batch_size = samples_within(role.inputs, BATCH)
        self.batches = JudgedBatches(role.inputs, batch_size, dtype)
        exact = JudgedBatches(role.inputs, batch_size, torch.float32)
        self.targets: Sequence[Samples] = [None] * len(exact) if role.targets is None else cut(role.targets, batch_size)
        self._references: list[dict[str, Tensor]] = []
        tried: list[Samples] = []
        tried_bytes = 0
        for number, batch in zip(exact.sizes, exact, strict=True):
            outputs = outputs_of(task.model, batch, self.forward)
            tensors = task.tensors(outputs)
            if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
                raise ValueError("the dense network's outputs hold NaN or infinity; its weights or data may be broken")
            if not tried or tried_bytes < TRIED_BYTES:
                tried.append(outputs)
                tried_bytes += sum(tensor.nbytes for tensor in leaves(outputs))
            large = sum(t.nbytes for t in tensors.values()) / number * len(role) > KEPT_WHOLE_BYTES
            half = torch.float16 if large else torch.float32
            self._references.append({k.name: k.reference(tensors[k.name]).to(half) for k in self._kinds})
        self._counting = counted_outputs(task, tried[0], role.targets)
        self._weights = self._positions_of_samples(exact.sizes)
        self._scales = {kind.name: self._scale(kind) for kind in self._kinds if kind.has_scale}
        self.whole_metric = (
            task.measured
            and role.targets is not None
            and not (self._counting and len(self._kinds) == 1 and self._over_positions(task.metric))
            and not is_mean(task.metric, tried, self.targets[: len(tried)])
        )
        by_samples = bool(self._counting) and not isinstance(task.loss, DefaultLoss) and task.trained
        by_samples = by_samples and is_mean(task.loss, tried, self.targets[: len(tried)])
        # whether metric and loss are means over the positions that count, rather than over samples
        self._weighted = np.array([self._over_positions(task.metric), not by_samples])
        self._plan: Hashable = None
        self._outputs: dict[int, Samples] = {}

    @property
    def _kinds(self) -> list[OutputKind]:
        return [kind for kind in self.task.outputs if kind.weight]

    def __call__(self, network: nn.Module) -> Metrics:
        """The network's metrics on the whole role. Raises FloatingPointError where its outputs are not finite."""
        table, every = [], []
        for batch in range(len(self.batches)):
            outputs = self._finite_outputs(network, batch)
            weights = np.where(self._weighted, self._weights[batch].mean(), 1.0)
            values = np.array(self._of_targets(outputs, self.targets[batch])) * weights
            table.append([*values, *(float(value.mean()) for value in self._compared(outputs, batch))])
            if self.whole_metric:
                every.append(outputs)
        share = np.array(self.batches.sizes) / self.samples
        accuracy, loss, kl, agreement = (share @ np.array(table)).tolist()
        if self.whole_metric:
            accuracy = float(self.task.metric(joined_samples(every), joined_samples(self.targets)))
        return Metrics(accuracy, loss, kl, agreement, samples=self.samples)

    def judge(self, network: nn.Module, start: int, stop: int, *, plan: Hashable = None) -> list[Judged]:
        """The network judged on batches start … stop - 1, one by one, in blocks of a few samples.

        Args:
            network: The network.
            start: The first batch.
            stop: The batch that comes after the last one.
            plan: Names the network, so that outputs which a metric of the whole role needs can be remembered from call
                to call.

        Raises:
            FloatingPointError: Its outputs are not finite.
        """
        return [self._judged(network, batch, plan) for batch in range(start, stop)]

    def _judged(self, network: nn.Module, batch: int, plan: Hashable) -> Judged:
        clock = time.perf_counter()
        outputs, targets = self._finite_outputs(network, batch), self.targets[batch]
        number = number_of(outputs)
        firsts = np.arange(0, number, self.block)
        samples = np.diff(np.append(firsts, number)).astype(np.int32)
        parts = [slice(first, first + self.block) for first in firsts.tolist()]
        table = np.array([self._of_targets(rows(outputs, part), rows(targets, part)) for part in parts]).T
        weights = np.add.reduceat(self._weights[batch], firsts) / samples
        table = np.where(self._weighted[:, None], table * weights, table)
        values = [*table, *(np.add.reduceat(v, firsts) / samples for v in self._compared(outputs, batch))]
        if self.whole_metric:
            values[0] = np.full(len(firsts), self._whole(network, batch, outputs, plan))
        return Judged(np.array(values, np.float32), samples, time.perf_counter() - clock)

    def _scale(self, kind: OutputKind) -> Tensor:
        reference = torch.cat([reference[kind.name].float() for reference in self._references])
        counts = self._counting.get(kind.name)
        counted = None if counts is None else torch.cat([counts(targets) for targets in self.targets])
        return kind.scale(reference, counted=counted)

    def _positions_of_samples(self, sizes: Sequence[int]) -> list[FloatArray]:
        """How many positions of every sample count, over their mean: 1 unless there is one output of which some do."""
        if len(self._kinds) > 1 or not self._counting:
            return [np.ones(size) for size in sizes]
        (counts,) = self._counting.values()
        numbers = [counts(targets).sum(dim=1).double().cpu().numpy() for targets in self.targets]
        mean = max(float(np.concatenate(numbers).mean()), np.finfo(float).tiny)
        return [each / mean for each in numbers]

    @staticmethod
    def _over_positions(metric: Metric) -> bool:
        """Whether a metric is a mean over the positions that count."""
        return metric is token_accuracy or (isinstance(metric, DefaultMetric) and metric.kind.kind in CATEGORICAL)

    def _whole(self, network: nn.Module, batch: int, outputs: Samples, plan: Hashable) -> float:
        """The metric of the whole role where this is its last batch, NaN before."""
        if plan is None or plan != self._plan:
            self._plan, self._outputs = plan, {}
        self._outputs[batch] = outputs
        if batch + 1 < len(self.batches):
            return math.nan
        remembered, self._outputs = self._outputs, {}
        every = [
            remembered[i] if i in remembered else self._finite_outputs(network, i) for i in range(len(self.batches))
        ]
        return float(self.task.metric(joined_samples(every), joined_samples(self.targets)))

    def _of_targets(self, outputs: Samples, targets: Samples) -> tuple[float, float]:
        """Metric and loss, NaN where they can't be computed."""
        if targets is None:
            return math.nan, math.nan
        metric, loss = self.task.metric, self.task.loss
        return (
            float(metric(outputs, targets)) if self.task.measured and not self.whole_metric else math.nan,
            math.nan if isinstance(loss, NeedsLabels) else float(loss(outputs, targets)),
        )

    def _finite_outputs(self, network: nn.Module, batch: int) -> Samples:
        outputs = outputs_of(network, self.batches[batch], self.forward)
        for tensor in self.task.tensors(outputs).values():
            if not torch.isfinite(tensor.sum(dim=-1)).all():  # of every output takes as much memory as they do
                raise FloatingPointError(f"{int((~torch.isfinite(tensor)).sum())} of its outputs are NaN or infinite")
        return outputs

    def _compared(self, outputs: Samples, batch: int) -> Compared:
        """Divergence from the dense network and agreement with it, of each sample.

        Of large outputs a part of the samples at a time: the intermediate results are several times the outputs.
        """
        tensors, references = self.task.tensors(outputs), self._references[batch]
        number = number_of(outputs)
        step = max(1, COMPARED_BYTES * number // max(1, sum(tensor.nbytes for tensor in tensors.values())))
        divergences, agreements = [], []
        every = {name: counts(self.targets[batch]) for name, counts in self._counting.items()}
        for start in range(0, number, step):
            part = slice(start, start + step)
            by_output: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
            for kind in self._kinds:
                arguments = tensors[kind.name][part], references[kind.name][part].float(), self._scales.get(kind.name)
                counted = every[kind.name][part] if kind.name in every else None
                by_output[0][kind.name] = kind.divergence(*arguments, counted=counted)
                by_output[1][kind.name] = kind.agreement(*arguments, counted=counted)
            divergences.append(combined(self.task.outputs, by_output[0]).cpu().numpy())
            agreements.append(combined(self.task.outputs, by_output[1]).cpu().numpy())
        weights = self._weights[batch]
        return np.concatenate(divergences) * weights, np.concatenate(agreements) * weights


def is_mean(metric: Callable[[Any, Any], Any], outputs: Sequence[Samples], targets: Sequence[Samples]) -> bool:
    """Whether the metric of samples is the mean of its values of parts of them, weighted by their numbers.

    It is tried on these outputs, and on them in another order, where most answers are wrong: of a perfect network every
    metric is 1 of every part.

    Args:
        metric: (outputs, targets) → a number, higher is better.
        outputs: Of the network, batch by batch.
        targets: What outputs are compared with, batch by batch.
    """
    whole, wanted = joined_samples(outputs), joined_samples(targets)
    number = number_of(whole)
    order = torch.from_numpy(np.random.default_rng(0).permutation(number))
    for tried in (whole, rows(whole, order.to(leaves(whole)[0].device))):
        try:
            together = float(metric(tried, wanted))
            for half in (number // 2, number // 3):
                parts = [slice(0, half), slice(half, number)]
                values = [float(metric(rows(tried, part), rows(wanted, part))) for part in parts if half]
                mean = sum(v * share for v, share in zip(values, (half / number, 1 - half / number), strict=False))
                if half and not abs(mean - together) <= MEAN_TOLERANCE * max(1.0, abs(together)):
                    return False
        except (ValueError, IndexError, ZeroDivisionError):  # too few samples, or of too few classes, for this metric
            return False
    return True


def metrics_read(score: Score, reward: Callable[..., float]) -> frozenset[str]:
    """The metrics without which score or reward are not numbers.

    Args:
        score: What is made of a network's metrics, higher is better.
        reward: (metrics, …) → reward.
    """
    good = {"accuracy": 0.5, "loss": 1.0, "kl": 1.0, "agreement": 0.5}

    def fails_without(name: str) -> bool:
        metrics = Metrics(**(good | {name: math.nan}), samples=1)
        return math.isnan(scored := score(metrics)) or math.isnan(reward(metrics, scored, 0.5, 0.5))

    return frozenset(filter(fails_without, good))


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


class JudgedBatches(Sequence[Any]):
    """A role's inputs, batch by batch, as networks read them: each is made when it is asked for, and not kept."""

    def __init__(self, inputs: Samples, size: int, dtype: torch.dtype) -> None:
        """Cuts them.

        Args:
            inputs: Of the role.
            size: Samples of a batch; a last one of one sample joins the one before it.
            dtype: Of the floats among them.
        """
        self._parts, self._dtype = cut(inputs, size), dtype
        self.sizes: list[int] = [part.stop - part.start for part in self._parts.slices]

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: Any) -> Any:
        batch = self._parts[index]
        release_between(batch)
        return images_last(mapped(batch, lambda x: x.to(self._dtype) if x.is_floating_point() else x))
