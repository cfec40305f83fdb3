"""One training loop: the zoo is made with it, and recovery after pruning uses it."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from autoprune.task.task import Role, first_outputs

Augment = Callable[[Tensor, torch.Generator], Tensor]


def fit(
    model: nn.Module,
    role: Role,
    *,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    steps: int,
    learning_rate: float,
    generator: torch.Generator,
    batch_size: int = 128,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    warmup: float = 0.1,
    augment: Augment | None = None,
    bf16: bool = False,
    on_step: Callable[[int, int, float], None] | None = None,
) -> None:
    """Trains `model` in place by SGD with Nesterov momentum and leaves it in eval mode.

    The learning rate rises linearly over the first `warmup` fraction of steps and falls to zero along a cosine.
    loss: (outputs, inputs, targets) → scalar tensor; inputs are what the network saw, after augmentation.
    on_step: called with (step, steps, loss). Raises FloatingPointError where the loss is not finite.
    """
    optimizer = torch.optim.SGD(
        model.parameters(), lr=learning_rate, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _one_cycle(step / steps, warmup=warmup))
    device_type = role.inputs.device.type
    model.train()
    batches = _shuffled_batches(role, batch_size=batch_size, generator=generator)
    for step in range(steps):
        inputs, targets = next(batches)
        if augment is not None:
            inputs = augment(inputs, generator)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device_type, dtype=torch.bfloat16) if bf16 else nullcontext():
            value = loss(first_outputs(model(inputs)).float(), inputs, targets)
        if not torch.isfinite(value):
            raise FloatingPointError(
                f"the training loss is {value.item()} at step {step} of {steps}; lower the learning rate"
            )
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        schedule.step()
        if on_step is not None:
            on_step(step + 1, steps, value.item())
    model.eval()


def flip(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors each image [N, C, H, W] left–right with probability one half."""
    mirrored = torch.rand(len(inputs), generator=generator, device=inputs.device) < 0.5
    return torch.where(mirrored[:, None, None, None], inputs.flip(-1), inputs)


def supports_bf16(device: torch.device) -> bool:
    """The device computes in bfloat16 itself; elsewhere it is emulated, slower than float32."""
    match device.type:
        case "cuda":
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        case "cpu" if hasattr(torch.cpu, "get_capabilities"):  # older torch cannot tell
            has = torch.cpu.get_capabilities()
            return any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def _one_cycle(progress: float, *, warmup: float) -> float:
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + torch.cos(torch.tensor(torch.pi * (progress - warmup) / (1 - warmup))).item())


def _shuffled_batches(role: Role, *, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless full batches; a role smaller than a batch is one batch."""
    while True:
        order = torch.randperm(len(role), generator=generator, device=role.inputs.device)
        for rows in order.split(batch_size):
            if len(rows) == batch_size or len(role) < batch_size:
                yield role.inputs[rows], role.targets[rows]
