"""Learning from the dense network's outputs (Hinton et al., arXiv 1503.02531)."""

import copy
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.task.task import Forward
from autoprune.task.training import Augment, flip

Lessons = Callable[
    [Tensor, Tensor], Tensor
]  # (inputs as the student sees them, their rows [N]) → the teacher's outputs
BATCH = 256  # samples that the teacher sees at once
MEMORY = 2**30  # bytes of the teacher's outputs that are kept; more of them are computed batch by batch


def distillation_loss(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)), mean over samples and positions.

    Logits are [N, classes] or [N, positions, classes]. T² keeps the size of its gradients independent of the
    temperature.
    """
    if student.ndim not in (2, 3) or student.shape[-1] < 2:
        raise ValueError(
            "distillation needs logits of shape [N, classes] or [N, positions, classes], "
            f"the network returns {list(student.shape)}; set distillation=0 for other outputs"
        )
    known, said = F.log_softmax(teacher / temperature, dim=-1), F.log_softmax(student / temperature, dim=-1)
    return temperature**2 * F.kl_div(said, known, log_target=True, reduction="none").sum(dim=-1).mean()


def lessons(
    teacher: nn.Module, inputs: Tensor, *, forward: Forward, augment: Augment | None, epochs: float, bf16: bool
) -> Lessons:
    """What the teacher says about whatever the student sees of `inputs` [samples, ...].

    Where augmentation shows a sample in a few ways only (as it is, mirrored), the teacher sees each of them once; with
    other augmentations, too few epochs to make that worth while, or outputs too big to be kept, it sees every batch.
    """
    ask = asking(teacher, forward=forward, images=inputs.ndim == 4, bf16=bf16)
    views = 1 if augment is None else 2
    if augment not in (None, flip) or epochs < views:
        return ask
    if views * len(inputs) * ask(inputs[:1], None).nbytes > MEMORY:
        return ask
    plain = torch.cat([ask(batch, None) for batch in torch.split(inputs, BATCH)])
    if augment is None:
        return lambda _, rows: plain[rows]
    mirrored = torch.cat([ask(batch.flip(-1), None) for batch in torch.split(inputs, BATCH)])

    def get_or_measure(seen: Tensor, rows: Tensor) -> Tensor:
        as_is = (seen == inputs[rows]).flatten(1).all(dim=1)
        return torch.where(as_is.view(-1, *[1] * (plain.ndim - 1)), plain[rows], mirrored[rows])

    return get_or_measure


def asking(
    teacher: nn.Module, *, forward: Forward, images: bool, bf16: bool
) -> Callable[[Tensor, Tensor | None], Tensor]:
    """The teacher asked about every batch anew, in eval mode and without gradients; rows make no difference."""
    if images or teacher.training:  # a copy, as the teacher itself is left alone
        teacher = copy.deepcopy(teacher).eval()
    if images:
        teacher = teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def ask(batch: Tensor, rows: Tensor | None) -> Tensor:
        if images:
            batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast(batch.device.type, torch.bfloat16) if bf16 else nullcontext():
            return forward(teacher, batch).float()

    return ask
