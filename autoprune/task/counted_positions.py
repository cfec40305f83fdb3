"""Which positions of a sample's answer count: not those of padding, or of pixels that belong to no class."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from autoprune.task.default_metrics import IGNORED, DefaultLoss, NeedsLabels
from autoprune.task.given_functions import few_answers, left_out_targets, read_places
from autoprune.task.outputs import CATEGORICAL, OutputKind
from autoprune.task.samples import Samples, leaves, mapped, named_outputs, number_of, paired_targets, rows
from autoprune.task.task import Task

TRIED_SAMPLES = 256  # in whose targets what is left out is looked for


@dataclass(frozen=True, slots=True)
class CountedPositions:
    """Says of every sample which positions of one output its targets hold something for."""

    name: str
    """The output's."""
    names: tuple[str, ...]
    """Of all outputs."""
    shape: tuple[int, ...]
    """Of the output's answers of one sample, without the axis of classes."""
    classes: int | None = None
    """Labels that are none of so many classes count nowhere; None: they do, but for −100."""
    left_out: tuple[float, ...] = ()
    """Targets that the task's loss does not read."""
    mask: int | None = None
    """Which tensor of the targets is above 0 where positions count, or holds how many do; None: none of them."""

    def __call__(self, targets: Samples) -> Tensor:
        """Whether they count, bool [N, positions].

        Args:
            targets: Of N samples.
        """
        if self.mask is not None:
            return _masked(leaves(targets)[self.mask], self.shape).flatten(1)
        own = paired_targets(list(self.names), targets)[self.name]
        assert own is not None  # as it was when this was made
        counted = ~own.isnan()
        if self.classes is not None:
            counted &= (own >= 0) & (own < self.classes)
        for value in self.left_out:
            counted &= own != value
        return counted.flatten(1)


def counted_outputs(task: Task, outputs: Samples, targets: Samples | None) -> dict[str, CountedPositions]:
    """Returns what says which positions count of the outputs of which not all do, by the outputs' names.

    Args:
        task: Its loss, and what its outputs mean.
        outputs: What the dense network returned for a few samples.
        targets: Of the same samples, and perhaps of more; None: there are none.
    """
    if targets is None:
        return {}
    few = rows(targets, slice(0, max(TRIED_SAMPLES, number_of(outputs))))
    loss = None if isinstance(task.loss, NeedsLabels) else task.loss
    counting = {kind.name: _counted_positions(loss, kind, outputs, few) for kind in task.outputs if kind.weight}
    return {name: counts for name, counts in counting.items() if counts is not None}


def _counted_positions(
    loss: Callable[..., Any] | None, kind: OutputKind, outputs: Samples, targets: Samples
) -> CountedPositions | None:
    """What says which positions count; None where all do, or an output has no positions.

    They are those that the loss reads: an `ignore_index`, a mask or lengths among the targets, and NaN are found by the
    loss's gradients at random answers.

    Args:
        loss: The task's (outputs, targets) → a scalar; None: it has none.
        kind: Of one output.
        outputs: What the network returned for a few samples.
        targets: Of the same samples, and perhaps of more.
    """
    outputs = mapped(few_answers(outputs, None)[0], torch.clone)  # copies, which derivatives may run through
    answers = named_outputs(outputs)
    shape = tuple(
        size
        for dim, size in enumerate(answers[kind.name].shape)
        if dim and not (kind.kind in CATEGORICAL and dim == kind.dim % answers[kind.name].ndim)
    )
    if kind.kind not in (*CATEGORICAL, "regression") or not shape or shape in ((1,), (1, 1)):
        return None
    counting = CountedPositions(kind.name, tuple(answers), shape)
    if loss is not None and not isinstance(loss, DefaultLoss) and kind.kind != "language":
        return _read_by(loss, kind, outputs, targets, counting)
    own = paired_targets(list(answers), targets)[kind.name]
    if own is None or own[0].numel() != torch.Size(shape).numel():
        return None
    if kind.kind == "language":  # whose losses all leave out the same, and whose answers are large
        return _unless_all(replace(counting, left_out=(IGNORED,)), targets)
    return _unless_all(replace(counting, classes=kind.classes if kind.kind in CATEGORICAL else None), targets)


def _read_by(
    loss: Callable[..., Any], kind: OutputKind, outputs: Samples, targets: Samples, counting: CountedPositions
) -> CountedPositions | None:
    """What of the targets says which positions a task's own loss reads."""
    few = rows(targets, slice(0, number_of(outputs)))
    try:
        read = read_places(loss, kind, outputs, few).flatten(1)
    except Exception:  # of a person's own function, which may not take such answers
        return None
    own = paired_targets(list(counting.names), targets)[kind.name]
    tried = [replace(counting, mask=index) for index in range(len(leaves(targets)))]
    if own is not None and own[0].numel() == read[0].numel():
        tried.insert(0, replace(counting, left_out=left_out_targets(loss, kind, outputs, targets)))
    return next((c for c in tried if torch.equal(c(few), read) and _unless_all(c, targets)), None)


def _unless_all(counting: CountedPositions, targets: Samples) -> CountedPositions | None:
    return None if bool(counting(targets).all()) else counting


def _masked(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The positions at which a mask [N, …] is above 0, or of which there are as many as a length [N] says, bool."""
    whole = (len(tensor), *shape)
    if tensor.ndim == 1 and not tensor.is_floating_point() and tensor.dtype != torch.bool:
        positions = torch.arange(shape[0], device=tensor.device).view(-1, *[1] * (len(shape) - 1))
        return (positions < tensor.view(-1, *[1] * len(shape))).expand(whole)
    if tensor.shape != whole[: tensor.ndim]:
        return tensor > 0
    return (tensor > 0).reshape(*tensor.shape, *[1] * (len(whole) - tensor.ndim)).expand(whole)
