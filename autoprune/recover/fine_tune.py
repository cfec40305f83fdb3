"""Fine-tuning: the pruned network trains on, from the weights it kept, and may learn from the dense network as well."""

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from autoprune.recover.distillation import Lessons, distillation_loss, lessons
from autoprune.recover.recovery import OnStep
from autoprune.task.task import Role, Task
from autoprune.task.training import fit, supports_bf16


def fine_tune(
    network: nn.Module,
    task: Task,
    *,
    teacher: nn.Module | None,
    steps: int,
    learning_rate: float,
    weight_decay: float,
    distillation: float,
    temperature: float,
    bf16: bool | Literal["auto"],
    generator: torch.Generator,
    batch_size: int = 128,
    on_step: OnStep | None = None,
) -> nn.Module:
    """A trained copy of `network` in eval mode; it has seen the task's train role and nothing else.

    Minimises (1 − w) · task loss + w · distillation loss (arXiv 1503.02531) by `task.training.fit`.

    distillation: the weight w of learning from `teacher`, in [0, 1]; 0 needs none. temperature: softens both sides.
    bf16: autocast to bfloat16; "auto" does so where the device has instructions for it.
    """
    if not 0 <= distillation <= 1:
        raise ValueError(f"distillation is the weight of the teacher's part of the loss, in [0, 1]; got {distillation}")
    if distillation and teacher is None:
        raise ValueError(
            f"distillation={distillation} needs a teacher, the dense network; pass one or set distillation=0"
        )
    if not (temperature > 0 and steps > 0):
        raise ValueError(f"temperature and steps must be positive, got {temperature} and {steps}")
    if bf16 not in (True, False, "auto"):
        raise ValueError(f"bf16 must be true, false or 'auto', got {bf16!r}")
    role, half = task.data.train, supports_bf16(task.device) if bf16 == "auto" else bf16
    # Rows take the targets' place, so that the loss finds the targets and what the teacher said of these samples.
    numbered = Role(role.inputs, torch.arange(len(role), device=role.inputs.device), role.ids)
    taught: Lessons | None = None
    if distillation and teacher is not None:
        epochs = steps * batch_size / len(role)
        taught = lessons(teacher, role.inputs, augment=task.augment, epochs=epochs, bf16=half)

    def loss(outputs: Tensor, inputs: Tensor, rows: Tensor) -> Tensor:
        value = task.loss(outputs, role.targets[rows])
        if taught is None:
            return value
        hint = distillation_loss(outputs, taught(inputs, rows), temperature=temperature)
        return (1 - distillation) * value + distillation * hint

    trained = copy.deepcopy(network)
    images = task.example_input.ndim == 4
    if images:  # ~1.3 × faster on a CPU
        trained = trained.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fit(
        trained,
        numbered,
        loss=loss,
        steps=steps,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        batch_size=batch_size,
        augment=task.augment,
        bf16=half,
        generator=generator,
        on_step=on_step,
    )
    if images:
        trained = trained.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return trained
