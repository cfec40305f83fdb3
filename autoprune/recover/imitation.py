"""Imitation: a pruned transformer's weights all learn to do what the dense one does, between its blocks as well."""

from typing import Literal

import torch
from torch import nn

from autoprune.ranges import Count, Fraction, NonNegative, Positive
from autoprune.recover.learning import Learning, learn
from autoprune.recover.recovery import OnStep
from autoprune.task.copies import copied
from autoprune.task.task import Task


def imitate(  # noqa: PLR0913 - a Recovery and its settings
    network: nn.Module,
    task: Task,
    *,
    teacher: nn.Module | None,
    steps: Count,
    batch_size: Count,
    learning_rate: Positive,
    weight_decay: NonNegative,
    distillation: Fraction,
    temperature: Positive,
    hidden_states: NonNegative,
    bf16: bool | Literal["auto"],
    generator: torch.Generator,
    on_step: OnStep | None = None,
) -> nn.Module:
    """A copy of `network` in eval mode, trained by AdamW; it has seen the task's train role and nothing else.

    This is how DistilBERT is made of every other block of BERT (arXiv 1910.01108): from the teacher's outputs and, by
    the cosine between them, its hidden states. The weights in the loss are those of `recover.learning.Learning`.

    Args:
        network: The pruned network, which stays as it is.
        task: The trained network, its data and its metric.
        teacher: The dense network to learn from; None where nothing is.
        steps: Of the optimiser, at least 1.
        batch_size: Samples in one forward pass, at least 1.
        learning_rate: At the peak of the schedule, above 0.
        weight_decay: Of the optimiser, at least 0.
        distillation: The weight w of learning from the teacher, in [0, 1].
        temperature: Softens both sides of the distillation loss, above 0.
        hidden_states: The weight of matching hidden states, at least 0.
        bf16: Whether to autocast to bfloat16; "auto" does where the device has instructions for it.
        generator: Draws all that is random here.
        on_step: Called with (step, steps, loss) after every step.
    """
    how = Learning(
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        distillation=distillation,
        temperature=temperature,
        hidden_states=hidden_states,
        bf16=bf16,
        optimizer="adamw",
        clip_norm=1.0,
    )
    trained = copied(network)
    learn(trained, task, how=how, teacher=teacher, generator=generator, on_step=on_step)
    return trained
