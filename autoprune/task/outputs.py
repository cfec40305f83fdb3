"""What a network's outputs mean, and so how far those of two networks are apart.

Every kind of output has a divergence from the dense network's (0 where they are equal), an agreement with it in [0, 1],
and a loss by which a network learns from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from autoprune.ranges import NonNegative, check_fields

Kind = Literal["classification", "segmentation", "multilabel", "regression", "embedding", "language"]
KINDS: tuple[str, ...] = get_args(Kind)
CATEGORICAL = ("classification", "segmentation", "language")

TINY = 1e-8  # the smallest probability that is told from 0
CONSTANT = 1e-8  # a feature whose variance is less of its mean square is said not to vary


@dataclass(frozen=True, slots=True)
class OutputKind:
    """One output of a network and what it means.

    Divergence and agreement by kind: `classification`, `segmentation` and `language` compare distributions over classes
    (KL divergence in nats, the same top-1 class), averaged over positions; `multilabel` compares independent yes-or-no
    answers, one logit among them (the sum of their KL divergences, the same answers); `regression` compares numbers
    (squared error over the variance of the dense network's, 1 minus that); `embedding` compares directions (squared
    distance of unit vectors over its variance in the dense network, cosine).

    >>> OutputKind("classification", axis=-1, probabilities=True, weight=0.5)
    OutputKind(kind='classification', name='', axis=-1, probabilities=True, classes=None, weight=0.5)
    """

    kind: Kind
    """One of classification, segmentation, multilabel, regression, embedding, language."""
    name: str = ""
    """Which output: a key or position, nested ones joined by dots; "" where the network returns a tensor."""
    axis: int | None = None
    """Axis of the classes, labels or features; None: 1, or −1 for language and embeddings."""
    probabilities: bool | None = None
    """The outputs are probabilities, not logits; None: noticed."""
    classes: int | None = None
    """How many classes; counted."""
    weight: NonNegative = 1.0
    """Share of this output in divergence, agreement and distillation, relative to the others; 0 leaves it out."""

    def __post_init__(self) -> None:
        check_fields(self, "task.kind")

    @property
    def dim(self) -> int:
        """The axis of classes, labels or features."""
        return self.axis if self.axis is not None else -1 if self.kind in ("language", "embedding") else 1

    def reference(self, dense: Tensor) -> Tensor:
        """What is kept of the dense network's outputs [N, ...] to compare others with; float32."""
        if self.kind in CATEGORICAL:
            return self._log_probabilities(dense)
        if self.kind == "multilabel":
            return self._logits(dense)
        return F.normalize(dense, dim=self.dim) if self.kind == "embedding" else dense

    @property
    def has_scale(self) -> bool:
        """Errors are relative to the dense network's variance."""
        return self.kind in ("regression", "embedding")

    def scale(self, reference: Tensor, *, counted: Tensor | None = None) -> Tensor:
        """What errors are divided by: the variance of the reference over samples, for each feature where there are few.

        Of kinds that have one.

        Args:
            reference: What `reference` keeps of the dense network's outputs [N, ...].
            counted: Of numbers, which positions count, bool [N, positions]; None: all.
        """
        if self.kind == "embedding":
            spread = reference.var(dim=0, correction=0).sum(dim=self._after_samples)
            return spread.mean().clamp(min=CONSTANT)
        if counted is not None:
            reference = reference.where(counted.view(reference.shape), torch.nan)
        dim = self._features(reference)
        flat = (
            reference.double().movedim(dim, -1).flatten(0, -2) if dim is not None else reference.double().reshape(-1, 1)
        )
        if counted is None:
            variance, square = flat.var(dim=0, correction=0), flat.square().mean(dim=0)
        else:
            variance, square = (flat - flat.nanmean(dim=0)).square().nanmean(dim=0), flat.square().nanmean(dim=0)
        scale = torch.where(variance > CONSTANT * square, variance, torch.where(square > 0, square, 1)).float()
        shape = [1] * reference.ndim
        if dim is not None:
            shape[dim] = -1
        return scale.view(shape)

    def divergence(
        self, outputs: Tensor, reference: Tensor, scale: Tensor | None, *, counted: Tensor | None = None
    ) -> Tensor:
        """How far each sample's outputs are from the dense network's, [N], at least 0.

        Args:
            outputs: The network's, float32 [N, ...].
            reference: What `reference` keeps of the dense network's [N, ...].
            scale: What `scale` says of the dense outputs, by which errors are divided; None for kinds without one.
            counted: Which positions count, bool [N, positions], one at least of each sample; None: all.
        """
        return _per_sample(self._divergences(outputs, reference, scale), counted)

    def agreement(
        self, outputs: Tensor, reference: Tensor, scale: Tensor | None, *, counted: Tensor | None = None
    ) -> Tensor:
        """How much of each sample's answer is the dense network's, [N], in [0, 1].

        Args:
            outputs: The network's, float32 [N, ...].
            reference: What `reference` keeps of the dense network's [N, ...].
            scale: What `scale` says of the dense outputs, by which errors are divided; None for kinds without one.
            counted: Which positions count, bool [N, positions], one at least of each sample; None: all.
        """
        if self.kind in CATEGORICAL:
            return _per_sample((outputs.argmax(dim=self.dim) == reference.argmax(dim=self.dim)).double(), counted)
        if self.kind == "multilabel":
            threshold = 0.5 if self.probabilities else 0.0
            return _per_sample(((outputs > threshold) == (reference > 0)).double())
        if self.kind == "embedding":
            return _per_sample(F.cosine_similarity(outputs, reference, dim=self.dim)).clamp(min=0)
        return 1 - self.divergence(outputs, reference, scale).clamp(max=1)

    def distillation(
        self,
        student: Tensor,
        teacher: Tensor,
        scale: Tensor | None,
        *,
        temperature: float,
        counted: Tensor | None = None,
    ) -> Tensor:
        """The divergence of a student from its teacher, mean over samples and the positions that count; scalar.

        Of kinds with probabilities T² · KL(teacher / T ‖ student / T): T² keeps the size of its gradients independent
        of the temperature.

        Args:
            student: The outputs of the network that learns [N, ...].
            teacher: The dense network's [N, ...].
            scale: What `scale` says of the dense outputs, by which errors are divided; None for kinds without one.
            temperature: Softens both sides of the distillation loss, above 0.
            counted: Which positions count, bool [N, positions]; None: all.
        """
        if self.kind in CATEGORICAL:
            wanted, given = (
                F.log_softmax((self._log_probabilities(x) if self.probabilities else x) / temperature, dim=self.dim)
                for x in (teacher, student)
            )
            divergence = F.kl_div(given, wanted, log_target=True, reduction="none").sum(dim=self.dim)
            return temperature**2 * _mean(divergence, counted)
        if self.kind == "multilabel":
            wanted, given = (self._logits(x) / temperature for x in (teacher, student))
            return temperature**2 * self._over_labels(_bernoulli_kl(wanted, given)).mean()
        return _mean(self._divergences(student, self.reference(teacher), scale), counted)

    def _divergences(self, outputs: Tensor, reference: Tensor, scale: Tensor | None) -> Tensor:
        """Of every sample and position, [N, ...]."""
        if self.kind in CATEGORICAL:
            given = self._log_probabilities(outputs)
            divergence = F.kl_div(given, reference, log_target=True, reduction="none").sum(dim=self.dim)
            if self.probabilities:  # that need not add up to 1: the generalised divergence is never below 0
                divergence = divergence + (given.exp() - reference.exp()).sum(dim=self.dim)
            return divergence
        if self.kind == "multilabel":
            return self._over_labels(_bernoulli_kl(reference, self._logits(outputs)))
        assert scale is not None  # as has_scale says
        if self.kind == "embedding":
            return (F.normalize(outputs, dim=self.dim) - reference).square().sum(dim=self.dim) / scale
        return (outputs - reference).square() / scale

    def _log_probabilities(self, outputs: Tensor) -> Tensor:
        if self.probabilities:
            return outputs.clamp(min=TINY).log()
        return F.log_softmax(outputs, dim=self.dim)

    def _logits(self, outputs: Tensor) -> Tensor:
        return torch.logit(outputs, eps=TINY**0.5) if self.probabilities else outputs

    def _over_labels(self, divergences: Tensor) -> Tensor:
        return divergences.sum(dim=self.dim) if divergences.ndim > 1 else divergences

    @property
    def _after_samples(self) -> int:
        return self.dim if self.dim < 0 else self.dim - 1

    def _features(self, outputs: Tensor) -> int | None:
        """The axis of numbers that have a size each; None: all have one."""
        if self.axis is not None:
            return self.axis
        return 1 if outputs.ndim in (2, 4, 5) else None


def combined(kinds: tuple[OutputKind, ...], values: Mapping[str, Tensor]) -> Tensor:
    """The weighted mean of a value of each output.

    Args:
        kinds: What each output means.
        values: By the outputs' names.
    """
    counted = [kind for kind in kinds if kind.weight]
    if len(counted) == 1:
        return values[counted[0].name]
    total = sum(kind.weight for kind in counted)
    return torch.stack([values[kind.name] * (kind.weight / total) for kind in counted]).sum(dim=0)


def _per_sample(values: Tensor, counted: Tensor | None = None) -> Tensor:
    values = values.double().reshape(len(values), -1)
    if counted is None:
        return values.mean(dim=1)
    return values.where(counted, 0.0).sum(dim=1) / counted.sum(dim=1).clamp(min=1)


def _mean(values: Tensor, counted: Tensor | None) -> Tensor:
    """Of [N, ...], over the positions that count; 0 where none does."""
    if counted is None:
        return values.mean()
    return values.flatten(1).where(counted, 0.0).sum() / counted.sum().clamp(min=1)


def _bernoulli_kl(wanted: Tensor, given: Tensor) -> Tensor:
    """KL between yes-or-no answers by their logits, elementwise."""
    yes = wanted.sigmoid()
    return yes * (F.logsigmoid(wanted) - F.logsigmoid(given)) + (1 - yes) * (
        F.logsigmoid(-wanted) - F.logsigmoid(-given)
    )
