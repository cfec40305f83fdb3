"""Learning from the dense network's outputs (Hinton et al., arXiv 1503.02531), whatever kind they are of."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoprune.task.copies import copied
from autoprune.task.counted_positions import CountedPositions, counted_outputs
from autoprune.task.outputs import combined
from autoprune.task.roles import Role
from autoprune.task.samples import (
    Samples,
    chosen,
    cut,
    has_images,
    images_last,
    in_float32,
    joined_samples,
    leaves,
    mapped,
    number_of,
    rows,
    samples_within,
)
from autoprune.task.task import Forward, Task
from autoprune.task.training import Augment, flip

TeacherOutputs = Callable[
    [Samples, Tensor | None], Samples
]  # (inputs as the student sees them, their rows [N]) → the teacher's outputs
BATCH = 256  # samples that the teacher sees at once
MEMORY = 2**30  # bytes of the teacher's outputs that are kept; more of them are computed batch by batch
MOST_TRIED = 64  # samples by whose outputs is found out which positions count
TRIED_BYTES = 2**26  # of these outputs
MEASURED = 1024  # samples by which the scale of outputs is measured


@dataclass(frozen=True, slots=True)
class Distillation:
    """(student's outputs, teacher's outputs, rows) → how far the student is from its teacher; every output counts.

    Positions that the task's loss leaves out, such as padding, are left out here, too.

    Probabilities are compared at a temperature, numbers and directions relative to their variance in the teacher
    (`task.outputs.OutputKind.distillation`).
    """

    task: Task
    """Whose outputs are compared."""
    temperature: float
    """By which logits are divided on both sides, above 0."""
    scales: dict[str, Tensor]
    """Output → what its errors are divided by."""
    counting: dict[str, CountedPositions]
    """Output of which not all positions count → which do."""

    @classmethod
    def of(cls, task: Task, teach: TeacherOutputs, *, temperature: float) -> "Distillation":
        """Measures the scales on the train role, where an output has one.

        Args:
            task: The trained network, its data and its metric.
            teach: What the teacher answers to a batch.
            temperature: Softens both sides of the distillation loss, above 0.
        """
        role = task.data.train
        counting = {} if role.targets is None else _counting(task, teach)
        kinds = [kind for kind in task.outputs if kind.weight and kind.has_scale]
        if not kinds:
            return cls(task, temperature, {}, counting)
        some = slice(0, MEASURED)
        inputs = chosen(role.inputs, some)
        parts = cut(inputs, samples_within(inputs, BATCH))
        taught = joined_samples([mapped(teach(part, None), Tensor.detach) for part in parts])
        tensors, counted = task.tensors(taught), _counted(counting, role, some)
        scales = {
            kind.name: kind.scale(kind.reference(tensors[kind.name]), counted=counted.get(kind.name)) for kind in kinds
        }
        return cls(task, temperature, scales, counting)

    def __call__(self, student: Samples, teacher: Samples, at: Tensor) -> Tensor:
        ours, theirs = self.task.tensors(student), self.task.tensors(teacher)
        counted = _counted(self.counting, self.task.data.train, at)
        losses = {
            kind.name: kind.distillation(
                ours[kind.name],
                theirs[kind.name],
                self.scales.get(kind.name),
                temperature=self.temperature,
                counted=counted.get(kind.name),
            )
            for kind in self.task.outputs
            if kind.weight
        }
        return combined(self.task.outputs, losses)


def _counting(task: Task, teach: TeacherOutputs) -> dict[str, CountedPositions]:
    """What says which positions count, by a few of the teacher's outputs."""

    def taught(number: int) -> Samples:
        return mapped(teach(rows(task.data.train.inputs, slice(0, number)), None), Tensor.detach)

    one = sum(tensor.nbytes for tensor in leaves(taught(1)))
    return counted_outputs(task, taught(min(MOST_TRIED, max(2, TRIED_BYTES // one))), task.data.train.targets)


def _counted(counting: Mapping[str, CountedPositions], role: Role, which: slice | Tensor) -> dict[str, Tensor]:
    """Output → which positions of some of the role's samples count."""
    targets = rows(role.targets, which) if counting else None
    return {name: counts(targets) for name, counts in counting.items()}


def teacher_outputs(
    teacher: nn.Module, inputs: Samples, *, forward: Forward, augment: Augment | None, epochs: float, bf16: bool
) -> TeacherOutputs:
    """What the teacher says about whatever the student sees of `inputs`.

    Where augmentation shows a sample in a few ways only (as it is, mirrored), the teacher sees each of them once; with
    other augmentations, too few epochs to make that worth while, or outputs too big to be kept, it sees every batch.

    Args:
        teacher: The dense network to learn from.
        inputs: What the network reads [N, ...].
        forward: (network, inputs) → outputs: how the network is called.
        augment: (inputs, generator) → inputs; None for none.
        epochs: How often every sample is seen.
        bf16: Whether to autocast to bfloat16; "auto" does where the device has instructions for it.
    """
    ask = asking(teacher, forward=forward, images=has_images(inputs), bf16=bf16)
    views = 1 if augment is None else 2
    if augment not in (None, flip) or epochs < views:
        return ask
    one = sum(tensor.nbytes for tensor in leaves(ask(rows(inputs, slice(0, 1)), None)))
    if views * number_of(inputs) * one > MEMORY:
        return ask
    parts = cut(inputs, samples_within(inputs, BATCH))
    plain = joined_samples([ask(batch, None) for batch in parts])
    if augment is None:
        return lambda seen, at: ask(seen, None) if at is None else rows(plain, at)
    mirrored = joined_samples([ask(batch.flip(-1), None) for batch in parts])

    def recall(seen: Samples, at: Tensor | None) -> Samples:
        if at is None:
            return ask(seen, None)
        as_is = (seen == inputs[at]).flatten(1).all(dim=1)
        others = iter(leaves(rows(mirrored, at)))
        return mapped(rows(plain, at), lambda x: torch.where(as_is.view(-1, *[1] * (x.ndim - 1)), x, next(others)))

    return recall


def asking(teacher: nn.Module, *, forward: Forward, images: bool, bf16: bool) -> TeacherOutputs:
    """The teacher asked about every batch anew, in eval mode and without gradients; rows make no difference.

    Args:
        teacher: The dense network to learn from.
        forward: (network, inputs) → outputs: how the network is called.
        images: Whether inputs are images [N, channels, height, width].
        bf16: Whether to autocast to bfloat16; "auto" does where the device has instructions for it.
    """
    if images or teacher.training:  # a copy, as the teacher itself is left alone
        teacher = copied(teacher).eval()
    if images:
        teacher = teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def ask(batch: Samples, at: Tensor | None) -> Samples:
        device = leaves(batch)[0].device.type
        with torch.no_grad(), torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
            return in_float32(forward(teacher, images_last(batch) if images else batch))

    return ask
