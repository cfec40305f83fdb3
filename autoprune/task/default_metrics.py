"""What a network is measured and trained by where a task says nothing else, by the kinds of its outputs."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from autoprune.task.outputs import CATEGORICAL, TINY, OutputKind
from autoprune.task.samples import (
    Samples,
    named_outputs,
    paired_targets,
)

IGNORED = -100  # the label that torch's cross-entropy leaves out
VOID = 255  # the label of pixels that belong to no class, in most segmentation sets


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

    Labels that are no class don't count, nor does NaN. R² is of all samples at once: 1 − squared error over the
    targets' variance.
    """

    kind: OutputKind
    """Of the output that is judged."""
    left_out: tuple[float, ...] = ()
    """Targets that the task's own loss does not read, such as its ignore_index, and that count nowhere."""

    def __call__(self, outputs: Samples, targets: Samples) -> float:
        tensors = named_outputs(outputs)
        values, wanted = tensors[self.kind.name], paired_targets(list(tensors), targets)[self.kind.name]
        assert wanted is not None  # as it was when this metric was chosen
        if self.kind.kind in CATEGORICAL:
            answers = values.argmax(dim=self.kind.dim)
            labels = _labels(self.kind, values, wanted)
            counted = (labels != IGNORED) & self._read(labels)
            return (((answers == labels) & counted).sum() / counted.sum().clamp(min=1)).item()
        if self.kind.kind == "embedding":
            return F.cosine_similarity(values, wanted, dim=self.kind.dim).mean().item()
        wanted = wanted.reshape(values.shape)
        read = self._read(wanted)
        if self.kind.kind == "multilabel":
            right = (values > (0.5 if self.kind.probabilities else 0.0)) == (wanted > 0.5)
            return ((right & read).sum() / read.sum().clamp(min=1)).item()
        numbers = wanted.double().masked_fill(~read, torch.nan)
        error = (values.double() - numbers).square().nanmean(dim=0).nansum()
        spread = (numbers - numbers.nanmean(dim=0)).square().nanmean(dim=0).nansum()
        return 1 - (error / spread.clamp(min=torch.finfo(torch.float64).tiny)).item()

    def _read(self, targets: Tensor) -> Tensor:
        """Which targets count."""
        read = ~targets.isnan()
        for value in self.left_out:
            read = read & (targets != value)
        return read


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
    if kind.kind in CATEGORICAL:
        return _are_distributions(kind, outputs, targets) or _are_labels(kind, outputs, targets)
    if kind.kind == "embedding" and not targets.is_floating_point():
        return False
    return targets.numel() == outputs.numel()


def is_plain(kind: OutputKind, outputs: Samples, targets: Samples) -> bool:
    """Whether torch's cross-entropy reads outputs and targets as they are: logits [N, C], and classes [N].

    Args:
        kind: What the first output means.
        outputs: What the network returned for a few samples.
        targets: Of these.
    """
    if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor)) or kind.kind != "classification":
        return False
    whole = not targets.is_floating_point() and targets.dtype != torch.bool
    return whole and (outputs.ndim, targets.ndim) == (2, 1) and not kind.probabilities


def _loss(kind: OutputKind, values: Tensor, targets: Tensor) -> Tensor:
    if kind.kind in CATEGORICAL:
        values = values.movedim(kind.dim, 1)
        values = values.clamp(min=TINY).log() if kind.probabilities else values
        if _are_distributions(kind, values.movedim(1, kind.dim), targets):
            return F.cross_entropy(values, targets.movedim(kind.dim, 1).to(values.dtype))
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
    if _are_distributions(kind, values, targets):
        return targets.argmax(dim=kind.dim)
    classes = values.shape[kind.dim]
    labels = targets.reshape(values.select(kind.dim, 0).shape)
    return torch.where((labels >= 0) & (labels < classes), labels, IGNORED).long()


def _are_distributions(kind: OutputKind, outputs: Tensor, targets: Tensor) -> bool:
    """Whether targets hold a number for each class, as one-hot labels do."""
    return targets.ndim == outputs.ndim and targets.shape[kind.dim] == outputs.shape[kind.dim]


def _are_labels(kind: OutputKind, outputs: Tensor, targets: Tensor) -> bool:
    """Whether each answer has the number of a class, which may be written as a float."""
    if targets.numel() * outputs.shape[kind.dim] != outputs.numel():
        return False
    return not targets.is_floating_point() or bool(((targets == targets.round()) & (targets >= IGNORED)).all())
