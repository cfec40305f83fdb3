"""Learning from the dense network's outputs (Hinton et al., arXiv 1503.02531)."""

import copy
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.task.task import first_outputs
from autoprune.task.training import Augment, flip

Lessons = Callable[
    [Tensor, Tensor], Tensor
]  # (inputs as the student sees them, their rows [N]) → the teacher's outputs
BATCH = 256  # images that the teacher sees at once


def distillation_loss(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)), mean over samples; logits are [N, classes, ...].

    T² keeps the size of its gradients independent of the temperature.
    """
    if student.ndim < 2 or student.shape[1] < 2:
        raise ValueError(
            f"distillation needs logits of shape [N, classes, ...], the network returns {list(student.shape)}; "
            "set distillation=0 for other outputs"
        )
    known, said = F.log_softmax(teacher / temperature, dim=1), F.log_softmax(student / temperature, dim=1)
    return temperature**2 * F.kl_div(said, known, log_target=True, reduction="none").sum(dim=1).mean()


def lessons(teacher: nn.Module, inputs: Tensor, *, augment: Augment | None, epochs: float, bf16: bool) -> Lessons:
    """What the teacher says about whatever the student sees of `inputs` [samples, ...].

    Where augmentation shows a sample in a few ways only (as it is, mirrored), the teacher sees each of them once; with
    other augmentations, or too few epochs to make that worth while, it sees every batch.
    """
    teacher = copy.deepcopy(teacher).eval()
    if inputs.ndim == 4:
        teacher = teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def ask(batch: Tensor, rows: Tensor | None = None) -> Tensor:
        if batch.ndim == 4:
            batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast(batch.device.type, torch.bfloat16) if bf16 else nullcontext():
            outputs = first_outputs(teacher(batch)).float()
        return outputs.clone()  # an inference tensor cannot take part in training, its copy can

    if augment not in (None, flip) or epochs < (1 if augment is None else 2):
        return ask
    plain = torch.cat([ask(batch) for batch in torch.split(inputs, BATCH)])
    if augment is None:
        return lambda _, rows: plain[rows]
    mirrored = torch.cat([ask(batch.flip(-1)) for batch in torch.split(inputs, BATCH)])

    def recall(seen: Tensor, rows: Tensor) -> Tensor:
        as_is = (seen == inputs[rows]).flatten(1).all(dim=1)
        return torch.where(as_is.view(-1, *[1] * (plain.ndim - 1)), plain[rows], mirrored[rows])

    return recall
