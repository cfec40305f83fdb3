"""A task's own metric and loss: how they are called, and what of them is refused before anything is judged by them."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.task.default_metrics import IGNORED
from autoprune.task.outputs import CATEGORICAL, OutputKind
from autoprune.task.samples import (
    Samples,
    first_tensor,
    joined_samples,
    leaves,
    mapped,
    named_outputs,
    number_of,
    paired_targets,
    rows,
)

What = Literal["metric", "loss"]

# Names of a function's first two arguments that say in which order it takes them.
TRUTHS = frozenset(("y_true", "true", "truth", "target", "targets", "label", "labels", "gt", "ground_truth", "y_test"))
ANSWERS = frozenset(("y_pred", "pred", "preds", "prediction", "predictions", "output", "outputs", "logits", "y_score",
                     "y_prob", "y_hat", "yhat", "scores", "probs"))  # fmt: skip
DEALT = 20  # times that answers are dealt to other samples, to see what a metric makes of wrong ones
FEWEST_DEALT = 8  # samples
DEVIATIONS = 4  # by which right answers are worse than wrong ones where a function has the wrong sign
NOISES = (0.1, 1.0, 30.0)  # sizes of answers at which a loss is asked what it reads
FREQUENT = 20  # targets, the most frequent ones, that may be left out
TRIED_NUMBERS = 8_000_000  # of answers that a function is tried on at once
MOST_NUMBERS = 64_000_000  # of answers that a loss is asked about in all


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
class BatchedMetric:
    """A metric that gathers batches, as torchmetrics' do: of these samples alone, whatever it was asked before."""

    metric: Any
    """Has `reset()`, `update(outputs, targets)` and `compute()`."""

    def __call__(self, outputs: Samples, targets: Samples) -> Any:
        self.metric.reset()
        self.metric.update(outputs, targets)
        value = self.metric.compute()
        self.metric.reset()  # it holds nothing between two calls, in any process
        return value


def name_of(function: Any) -> str:
    """What a metric or loss is called in reports.

    Args:
        function: As a task holds it.
    """
    while isinstance(function, OfFirst | MeanLoss | BatchedMetric):
        function = function.metric if isinstance(function, BatchedMetric) else function.function
    return str(getattr(function, "__name__", type(function).__name__)).strip("<>")


def few_answers(outputs: Samples, targets: Samples | None) -> tuple[Samples, Samples | None]:
    """Returns as many samples as functions are tried on: fewer where answers are large, such as whole vocabularies.

    Args:
        outputs: What the network returned for a few samples.
        targets: Of these; None: there are none.
    """
    few = max(2, TRIED_NUMBERS // _numbers(outputs))
    if few >= number_of(outputs):
        return outputs, targets
    return rows(outputs, slice(0, few)), None if targets is None else rows(targets, slice(0, few))


def _numbers(outputs: Samples) -> int:
    """How many numbers the answer to one sample has."""
    return max(1, sum(tensor[:1].numel() for tensor in leaves(outputs)))


def reading(what: What, function: Callable[..., Any], outputs: Samples, targets: Samples) -> Callable[..., Any]:
    """The metric or loss as it is if it reads all that the network returns, else of the first tensor.

    Args:
        what: "metric" or "loss".
        function: (outputs, targets) → a number.
        outputs: What the network returned for a few samples.
        targets: Of these.

    Raises:
        ValueError: It can't be computed of them, is no number, takes its arguments in another order, or is a metric
            that says another thing of the same outputs the next time.
    """
    _check_order(what, function)
    if all(hasattr(function, step) for step in ("reset", "update", "compute")):
        function = BatchedMetric(function)
    first: Exception | None = None
    for reader in (function, OfFirst(function)):
        try:
            value = reader(outputs, targets)
            if what == "loss" and isinstance(value, Tensor | float):
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
            way = {"metric": "is judged, and give further measures as Task(measure=…)", "loss": "is minimised"}[what]
            raise ValueError(
                f"task.{what} must return one number, and returned a {type(value).__name__}; let it return what {way}"
            ) from error
        if what == "metric" or not math.isnan(value):
            if what == "metric":
                _check_memory(reader, outputs, targets, value)
            return reader
    raise ValueError(
        f"task.{what} can't be computed of the network's outputs and targets of role 'calibration': "
        f"{type(first).__name__}: {first}{_swapped(what, function, outputs, targets)}"
    ) from first


def check_answers(own: Mapping[str, Any], *, error: Any, outputs: Samples, targets: Samples) -> None:
    """Of a network whose answers are better than the same answers dealt to other samples, a task's functions say so.

    What can't be computed of these few samples is left to those who judge them all.

    Args:
        own: "metric" and "loss" → (outputs, targets) → a number, of those that are the task's own.
        error: (outputs, targets) → what is surely lower of better answers.
        outputs: What the network returned for a few samples.
        targets: Of these.

    Raises:
        ValueError: One of them says the contrary.
    """
    if not own or targets is None or number_of(outputs) < FEWEST_DEALT:
        return
    better = _lower_by(error, outputs, targets)
    if better is None or better[2] < DEVIATIONS:
        return
    for what, function in own.items():
        lower = None if function is error else _lower_by(function, outputs, targets)
        if lower is not None and (lower[2] if what == "metric" else -lower[2]) > DEVIATIONS:
            side, way = ("higher", "its negative, or 1 − it") if what == "metric" else ("lower", "its negative")
            raise ValueError(
                f"task.{what} is {lower[0]:.4g} of the network's answers and {lower[1]:.4g} of the same answers dealt "
                f"to other samples, which are worse; {side} is better for a {what}, so return {way}"
            )


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


def with_gradient(loss: Any) -> Tensor:
    """The loss itself, where gradients can be taken of it.

    Args:
        loss: What a loss returned of outputs that have gradients.

    Raises:
        ValueError: It is no tensor, or none that torch computed from the outputs.
    """
    if isinstance(loss, Tensor) and loss.requires_grad:
        return loss
    what = "a tensor that was cut off from the outputs" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
    raise ValueError(
        f"the loss has no gradient to learn by, as it returns {what}; compute it in torch from the outputs, without "
        "item(), detach(), numpy() or argmax() on the way"
    )


def left_out_targets(
    loss: Callable[..., Any], kind: OutputKind, outputs: Samples, targets: Samples
) -> tuple[float, ...]:
    """The targets at which the loss is the same whatever the network answers, such as its ignore_index.

    It is asked for gradients at random answers of several sizes, so that no answer is right enough to have none.

    Args:
        loss: (outputs, targets) → a scalar.
        kind: Of the output that they belong to.
        outputs: What the network returned for a few samples.
        targets: Of many samples.
    """
    names = list(named_outputs(outputs))
    own = paired_targets(names, targets)[kind.name]
    if own is None or own.is_complex():
        return ()
    if kind.kind == "language":  # whose losses all leave out the same, and whose answers are large
        return (float(IGNORED),) if (own == IGNORED).any() else ()
    frequent = min(FREQUENT, max(2, MOST_NUMBERS // _numbers(outputs)))
    values, counts = own[~own.isnan()].unique(return_counts=True)
    candidates = values[counts.argsort(descending=True)[:frequent]]
    some = torch.stack([(own == value).reshape(len(own), -1).any(dim=1).int().argmax() for value in candidates])
    chosen = torch.cat([torch.arange(min(len(own), number_of(outputs)), device=own.device), some]).unique()
    wanted = own[chosen]
    parts = min(math.ceil(len(chosen) * _numbers(outputs) / TRIED_NUMBERS), max(1, len(chosen) // 2))
    read_of = partial(read_places, loss, kind)
    try:
        read = torch.cat(
            [
                read_of(rows(outputs, at % number_of(outputs)), rows(targets, chosen[at]))
                for at in torch.arange(len(chosen), device=own.device).tensor_split(parts)
            ]
        )
    except Exception:  # of a person's own function, which may not take such answers
        return ()
    if read.numel() != wanted.numel() or not read.any():
        return ()
    read = read.reshape(wanted.shape)
    return tuple(value.item() for value in candidates if not read[wanted == value].any())


def read_places(loss: Callable[..., Any], kind: OutputKind, outputs: Samples, targets: Samples) -> Tensor:
    """Which of one output's answers the loss reads, bool [n, ...] without the axis of classes.

    Args:
        loss: (outputs, targets) → a scalar.
        kind: Of the output.
        outputs: What the network returned for n samples.
        targets: Of these.
    """
    replaced = named_outputs(outputs)[kind.name]
    generator, sizes = torch.Generator().manual_seed(0), []
    for noise in NOISES:
        answer = noise * torch.randn(replaced.shape, generator=generator).to(replaced)
        if kind.probabilities:
            answer = answer.softmax(dim=kind.dim) if kind.kind in CATEGORICAL else answer.sigmoid()
        answer = answer.requires_grad_()
        with torch.enable_grad():
            given = mapped(outputs, _replacing(replaced, answer))
            (gradient,) = torch.autograd.grad(loss(given, targets), answer)
        sizes.append(gradient.abs().sum(dim=kind.dim) if kind.kind in CATEGORICAL else gradient.abs())
    return torch.stack(sizes).sum(dim=0) > 0


def _replacing(tensor: Tensor, other: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda each: other if each is tensor else each


def _check_order(what: What, function: Callable[..., Any]) -> None:
    """A function whose arguments have scikit-learn's names takes them in that order."""
    try:
        called = function.forward if isinstance(function, nn.Module) else function
        names = [parameter.lower() for parameter in inspect.signature(called).parameters][:2]
    except (TypeError, ValueError):
        return
    if len(names) == 2 and names[0] in TRUTHS and names[1] in ANSWERS:
        name = name_of(function)
        raise ValueError(
            f"task.{what} is called with (outputs, targets), and {name} takes ({', '.join(names)}), the other way "
            f"round; write {what}=lambda outputs, targets: {name}(targets, outputs)"
        )


def _swapped(what: What, function: Callable[..., Any], outputs: Samples, targets: Samples) -> str:
    try:
        float(function(targets, outputs))
    except Exception:  # of a person's own function
        return ""
    return f"; a {what} is called with (outputs, targets), and this one takes them the other way round"


def _check_memory(metric: Callable[..., Any], outputs: Samples, targets: Samples, value: float) -> None:
    """The metric says the same of the same outputs, whatever it was asked in between."""
    try:
        with torch.no_grad():
            metric(_dealt(outputs, np.random.default_rng(0)), targets)
            again = float(metric(outputs, targets))
    except Exception:  # of a person's own function
        return
    if not (math.isclose(again, value, rel_tol=1e-5, abs_tol=1e-7) or math.isnan(value)):
        raise ValueError(
            f"task.metric is {value:.6g} of some outputs and targets, and {again:.6g} of the same ones the next time; "
            "it has to forget what it was asked before, or has reset(), update(outputs, targets) and compute()"
        )


def _dealt(outputs: Samples, draws: np.random.Generator) -> Samples:
    order = torch.from_numpy(draws.permutation(number_of(outputs)))
    return rows(outputs, order.to(leaves(outputs)[0].device))


def _lower_by(function: Callable[..., Any], outputs: Samples, targets: Samples) -> tuple[float, float, float] | None:
    """(value, mean, deviations): of the answers, of them dealt to other samples, and by how many the first is lower."""
    draws = np.random.default_rng(0)
    try:
        with torch.no_grad():
            value = float(function(outputs, targets))
            others = [float(function(_dealt(outputs, draws), targets)) for _ in range(DEALT)]
    except Exception:  # of a person's own function
        return None
    mean = float(np.mean(others))
    return value, mean, (mean - value) / max(float(np.std(others)), 0.01 * abs(mean), 1e-12)
