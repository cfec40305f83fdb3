"""What a network is measured and trained by where a task says nothing else, by the kinds of its outputs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from autoprune.task.outputs import CATEGORICAL, TINY, OutputKind
from autoprune.task.samples import (
    Samples,
    first_tensor,
    joined_samples,
    named_outputs,
    number_of,
    paired_targets,
)

IGNORED = -100  # the label that torch's cross-entropy leaves out
VOID = 255  # the label of pixels that belong to no class, in most segmentation sets


@dataclass(frozen=True, slots=True)
class OfFirst:
    """A metric or loss that reads the first tensor of what a network returns."""

    function: Callable[..., Any]
    """(outputs, targets) → a number."""

    def __call__(self, outputs: Samples, targets: Samples) -> Any:
        return self.function(first_tensor(outputs), targets)


@dataclass(frozen=True, slots=True)
class MeanLoss:
    """The mean over samples of a loss that returns a number for each (reduction="none") or their sum."""

    function: Callable[..., Tensor]
    """(outputs, targets) → a loss for each sample, or their sum."""
    summed: bool
    """Whether it returns the sum."""

    def __call__(self, outputs: Samples, targets: Samples) -> Tensor:
        value = self.function(outputs, targets)
        return value / number_of(targets) if self.summed else value.mean()


@dataclass(frozen=True, slots=True)
class NeedsLabels:
    """Stands for the metric or loss of a task without labels: who needs it is told so."""

    what: str
    """Which of the two it stands for: "metric" or "loss"."""

    def __call__(self, outputs: Samples, targets: Samples) -> Any:
        raise ValueError(
            f"the task's {self.what} needs labels, and there are none; score=kl, importance=magnitude and learning "
            "from the dense network (recover=distill) need none"
        )


@dataclass(frozen=True, slots=True)
class DefaultLoss:
    """The weighted mean of a loss for each output that has targets of its own; scalar.

    Cross-entropy over the labels that are classes, binary cross-entropy of yes-or-no answers, the squared error of
    numbers, 1 − the cosine of embeddings.
    """

    kinds: tuple[OutputKind, ...]
    """Of the outputs that have targets."""

    def __call__(self, outputs: Samples, targets: Samples) -> Tensor:
        tensors = named_outputs(outputs)
        own = paired_targets(list(tensors), targets)
        total = sum(kind.weight for kind in self.kinds)
        losses = [(_loss(k, tensors[k.name], own[k.name]), k.weight / total) for k in self.kinds]  # type: ignore[arg-type]
        return losses[0][0] if len(losses) == 1 else torch.stack([loss * share for loss, share in losses]).sum()


@dataclass(frozen=True, slots=True)
class DefaultMetric:
    """How good one output is, higher is better: accuracy over labels or answers in [0, 1], R² of numbers, a cosine.

    Labels that are no class don't count. R² is of all samples at once: 1 − squared error over the targets' variance.
    """

    kind: OutputKind
    """Of the output that is judged."""

    def __call__(self, outputs: Samples, targets: Samples) -> float:
        tensors = named_outputs(outputs)
        values, wanted = tensors[self.kind.name], paired_targets(list(tensors), targets)[self.kind.name]
        assert wanted is not None  # as it was when this metric was chosen
        if self.kind.kind in CATEGORICAL:
            answers, labels = values.argmax(dim=self.kind.dim), _labels(self.kind, values, wanted)
            counted = labels != IGNORED
            return (((answers == labels) & counted).sum() / counted.sum().clamp(min=1)).item()
        if self.kind.kind == "embedding":
            return F.cosine_similarity(values, wanted, dim=self.kind.dim).mean().item()
        wanted = wanted.reshape(values.shape)
        if self.kind.kind == "multilabel":
            return ((values > (0.5 if self.kind.probabilities else 0.0)) == (wanted > 0.5)).float().mean().item()
        error = (values.double() - wanted.double()).square().mean(dim=0)
        spread = wanted.double().var(dim=0, correction=0)
        return 1 - (error.sum() / spread.sum().clamp(min=torch.finfo(torch.float64).tiny)).item()


def has_defaults(kind: OutputKind, outputs: Tensor, targets: Tensor | None) -> bool:
    """Whether targets alone say how good the output is.

    Not where there are none, nor labels of an embedding, nor numbers that are no distributions over the classes, nor
    where there are more or fewer targets than answers, as with the quantiles or the variance of one number.

    Args:
        kind: What the output means.
        outputs: Of a few samples.
        targets: Of the same samples.
    """
    if targets is None:
        return False
    answers = outputs.numel() // (kind.classes or 1)
    if targets.numel() != (outputs.numel() if targets.is_floating_point() else answers):
        return False
    if kind.kind in CATEGORICAL and targets.is_floating_point():
        return -targets.ndim <= kind.dim < targets.ndim and targets.shape[kind.dim] == kind.classes
    return kind.kind != "embedding" or targets.is_floating_point()


def mean_loss(loss: Callable[..., Any], outputs: Samples, targets: Samples) -> Callable[..., Any]:
    """The loss itself where it is a mean over samples, or is not to be told from one; else `MeanLoss` of it.

    A sum of the same samples twice is twice as large.

    Args:
        loss: (outputs, targets) → a scalar; used by criteria that need gradients.
        outputs: What the network returned.
        targets: What outputs are compared with.
    """
    value = loss(outputs, targets)
    if isinstance(value, Tensor) and value.numel() > 1:
        return MeanLoss(loss, summed=False)
    once, twice = float(value), float(loss(joined_samples([outputs] * 2), joined_samples([targets] * 2)))
    summed = once != 0 and abs(twice - 2 * once) <= 1e-4 * abs(once)
    return MeanLoss(loss, summed=True) if summed else loss


def reading(what: str, function: Callable[..., Any], outputs: Samples, targets: Samples) -> Callable[..., Any]:
    """The metric or loss as it is if it reads all that the network returns, else of the first tensor.

    Args:
        what: "metric" or "loss".
        function: (outputs, targets) → a number.
        outputs: What the network returned for a few samples.
        targets: Of these.

    Raises:
        ValueError: It can't be computed of them, or is no number.
    """
    first: Exception | None = None
    for reader in (function, OfFirst(function)):
        try:
            if what == "loss":
                reader = mean_loss(reader, outputs, targets)
            value = reader(outputs, targets)
        except Exception as error:
            first = error if first is None else first
            if what == "metric" and not isinstance(error, TypeError | AttributeError | LookupError):
                return reader  # it may need more samples than these
            continue
        try:
            value = float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"task.{what} must return one number, and returned a {type(value).__name__}; let it return what is "
                "judged, and give further measures as Task(measure=…)"
            ) from error
        if what == "metric" or not math.isnan(value):
            return reader
    raise ValueError(
        f"task.{what} can't be computed of the network's outputs and targets of role 'calibration': "
        f"{type(first).__name__}: {first}"
    ) from first


def _loss(kind: OutputKind, values: Tensor, targets: Tensor) -> Tensor:
    if kind.kind in CATEGORICAL:
        values = values.movedim(kind.dim, 1)
        values = values.clamp(min=TINY).log() if kind.probabilities else values
        if targets.is_floating_point():
            return F.cross_entropy(values, targets.movedim(kind.dim, 1))
        labels = _labels(kind, values.movedim(1, kind.dim), targets)
        return F.cross_entropy(values, labels, reduction="sum") / (labels != IGNORED).sum().clamp(min=1)
    if kind.kind == "embedding":
        return (1 - F.cosine_similarity(values, targets, dim=kind.dim)).mean()
    wanted = targets.reshape(values.shape).to(values.dtype)
    if kind.kind == "regression":
        return F.mse_loss(values, wanted)
    if kind.probabilities:
        return F.binary_cross_entropy(values.clamp(0, 1), wanted)
    return F.binary_cross_entropy_with_logits(values, wanted)


def _labels(kind: OutputKind, values: Tensor, targets: Tensor) -> Tensor:
    """Class indices without the axis of classes; what is no class is IGNORED."""
    if targets.is_floating_point():
        return targets.argmax(dim=kind.dim)
    classes = values.shape[kind.dim]
    return torch.where((targets < 0) | (targets >= classes), IGNORED, targets).long()
