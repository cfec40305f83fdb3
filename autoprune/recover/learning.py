"""What a pruned network minimises when it learns from its task, the dense network's outputs and its hidden states."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from autoprune.ranges import Count, Fraction, NonNegative, Positive, check_fields
from autoprune.recover.distillation import Distillation, asking, teacher_outputs
from autoprune.recover.hidden_states import blocks_of, hearing, hidden_loss, kept_blocks
from autoprune.recover.recovery import OnStep
from autoprune.task.copies import copied
from autoprune.task.outputs import TINY
from autoprune.task.samples import Samples, rows
from autoprune.task.task import Forward, Task
from autoprune.task.training import Optimizer, fit, runs_in_bf16

Loss = Callable[[Samples, Samples, Tensor], Tensor]  # (outputs, inputs as the student sees them, their rows) → a loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """How a pruned network learns: from (1 − w) · task loss + w · distillation loss + h · hidden-state loss."""

    steps: Count
    """Of the optimiser."""
    batch_size: Count
    """Samples in a step."""
    learning_rate: Positive
    """At the peak of the schedule."""
    weight_decay: NonNegative
    """Of the optimiser."""
    distillation: Fraction
    """The weight w of learning from the teacher."""
    temperature: Positive
    """Softens both sides of the distillation loss."""
    hidden_states: NonNegative
    """The weight h of matching hidden states."""
    bf16: bool | Literal["auto"]
    """Autocast to bfloat16; "auto" does so where the device has instructions for it."""
    optimizer: Optimizer
    """sgd or adamw."""
    clip_norm: Positive | None = None
    """The longest gradient; None for any length."""

    def __post_init__(self) -> None:
        check_fields(self, "recover")

    @property
    def asks(self) -> bool:
        """Whether there is anything to learn from a teacher."""
        return bool(self.distillation or self.hidden_states)

    def minimise(
        self,
        loss: Loss,
        network: nn.Module,
        task: Task,
        *,
        forward: Forward,
        generator: torch.Generator,
        on_step: OnStep | None,
    ) -> None:
        """Trains the network in place on the task's train role, for a loss that finds each sample by its row.

        Args:
            loss: (outputs, inputs, rows of the role) → a scalar; the rows take the targets' place.
            network: Whose parameters that require gradients are trained.
            task: Its data, and how its samples are augmented.
            forward: (network, inputs) → outputs.
            generator: Draws batches and augmentations.
            on_step: Called with (step, steps, loss) after every step.
        """
        role = task.data.train
        fit(
            network,
            role.with_targets(torch.arange(len(role), device=role.device)),
            loss=loss,
            steps=self.steps,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            clip_norm=self.clip_norm,
            augment=task.augment,
            bf16=runs_in_bf16(network, role.inputs, task.forward) if self.bf16 == "auto" else self.bf16,
            forward=forward,
            generator=generator,
            on_step=on_step,
        )


def learn(
    network: nn.Module,
    task: Task,
    *,
    how: Learning,
    teacher: nn.Module | None,
    generator: torch.Generator,
    on_step: OnStep | None = None,
) -> None:
    """Trains the network in place, on the task's train role and nothing else, and leaves it in eval mode.

    Without targets it learns from the teacher alone.

    Args:
        network: The pruned network, whose parameters that require gradients are trained.
        task: The trained network, its data and its metric.
        how: For how long, at which rate, and from what.
        teacher: The dense network to learn from; None where nothing is.
        generator: Draws all that is random here.
        on_step: Called with (step, steps, loss) after every step.

    Raises:
        ValueError: There is no teacher to learn from.
    """
    role = task.data.train
    half = runs_in_bf16(network, role.inputs, task.forward) if how.bf16 == "auto" else how.bf16
    if not task.trained:
        if not how.asks:
            task.require_labels("recovery that does not learn from the dense network (distillation=0)")
        how = replace(how, distillation=1.0)
    if how.asks and teacher is None:
        weights = f"distillation={how.distillation} and hidden_states={how.hidden_states}"
        raise ValueError(f"{weights} needs a teacher, the dense network; pass one or set both to 0")
    scaled = any(kind.has_scale and kind.weight for kind in task.outputs)
    own_weight: list[float] = []
    with _hints(network, task, how=how, teacher=teacher if how.asks else None, bf16=half) as hint:

        def loss(outputs: Samples, inputs: Samples, at: Tensor) -> Tensor:
            taught = None if hint is None else hint(outputs, inputs, at)
            if taught is not None and how.distillation == 1:
                return taught
            own = task.loss(outputs, rows(role.targets, at))
            if taught is None:
                return own
            if not own_weight:  # of a loss of any scale: what makes both parts weigh alike where training begins
                alike = abs(float(taught.detach())) / max(abs(float(own.detach())), TINY) if scaled else 1.0
                own_weight.append((1 - how.distillation) * alike)
            return own_weight[0] * own + taught

        replace(how, bf16=half).minimise(
            loss, network, task, forward=task.forward, generator=generator, on_step=on_step
        )


@contextmanager
def _hints(
    network: nn.Module, task: Task, *, how: Learning, teacher: nn.Module | None, bf16: bool
) -> Iterator[Loss | None]:
    """The teacher's part of the loss, weighted; None without a teacher."""
    if teacher is None:
        yield None
        return
    if not how.hidden_states:
        inputs, epochs = task.data.train.inputs, how.steps * how.batch_size / len(task.data.train)
        taught = teacher_outputs(teacher, inputs, forward=task.forward, augment=task.augment, epochs=epochs, bf16=bf16)

        distil = Distillation.of(task, taught, temperature=how.temperature)

        def from_outputs(outputs: Samples, seen: Samples, at: Tensor) -> Tensor:
            return how.distillation * distil(outputs, taught(seen, at), at)

        yield from_outputs
        return
    teacher = copied(teacher).eval() if teacher.training else teacher
    kept, ask = kept_blocks(network), asking(teacher, forward=task.forward, images=False, bf16=bf16)
    distil = Distillation.of(task, ask, temperature=how.temperature)
    with (
        hearing(network, before=kept[1:], after=kept[-1]) as student,
        hearing(teacher, before=kept[1:], after=blocks_of(teacher)[-1]) as dense,
    ):

        def from_both(outputs: Samples, seen: Samples, at: Tensor) -> Tensor:
            taught = ask(seen, at)  # this is when the teacher is heard
            hint = how.hidden_states * hidden_loss(student, dense)
            return hint + how.distillation * distil(outputs, taught, at) if how.distillation else hint

        yield from_both
