"""One training loop: the zoo is made with it, and recovery after pruning uses it."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from autoprune.task.samples import Samples, images_last, in_float32, number_of, rows
from autoprune.task.task import Forward, Role, plain_forward

Augment = Callable[[Any, torch.Generator], Any]
Optimizer = Literal["sgd", "adamw"]


def fit(
    model: nn.Module,
    role: Role,
    *,
    loss: Callable[[Any, Any, Any], Tensor],
    steps: int,
    learning_rate: float,
    generator: torch.Generator,
    batch_size: int = 128,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    warmup: float = 0.1,
    optimizer: Optimizer = "sgd",
    clip_norm: float | None = None,
    augment: Augment | None = None,
    bf16: bool = False,
    forward: Forward = plain_forward,
    on_step: Callable[[int, int, float], None] | None = None,
) -> None:
    """Trains those of `model`'s parameters that require gradients, in place, and leaves it in eval mode.

    The learning rate rises linearly over the first `warmup` fraction of steps and falls to zero along a cosine.
    loss: (outputs, inputs, targets) → scalar tensor; inputs are what the network saw, after augmentation.
    optimizer: "sgd" with Nesterov momentum, or "adamw" (arXiv 1711.05101), where `momentum` is β₁.
    clip_norm: the longest gradient. forward: how the network is called. on_step: called with (step, steps, loss).
    Dropout draws from numbers of its own, seeded as `generator` was. Raises FloatingPointError where the loss is not
    finite.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = _optimiser(trained, optimizer, learning_rate, momentum=momentum, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _one_cycle(step / steps, warmup=warmup))
    device = role.device
    batches = _shuffled_batches(role, batch_size=batch_size, generator=generator)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(generator.initial_seed())
        model.train()
        for step in range(steps):
            inputs, targets = next(batches)
            if augment is not None:
                inputs = augment(inputs, generator)
            inputs = images_last(inputs)
            _set_norms(model, training=number_of(inputs) > 1)
            with torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext():
                value = loss(in_float32(forward(model, inputs)), inputs, targets)
            if not torch.isfinite(value):
                raise FloatingPointError(
                    f"the training loss is {value.item()} at step {step} of {steps}; lower the learning rate"
                )
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(trained, clip_norm)
            optimiser.step()
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


def _optimiser(
    parameters: list[nn.Parameter], name: Optimizer, learning_rate: float, *, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    match name:
        case "sgd":
            return torch.optim.SGD(
                parameters, lr=learning_rate, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0
            )
        case "adamw":
            return torch.optim.AdamW(parameters, lr=learning_rate, betas=(momentum, 0.999), weight_decay=weight_decay)
    raise ValueError(f"optimizer must be 'sgd' or 'adamw', got {name!r}")


def _one_cycle(progress: float, *, warmup: float) -> float:
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + torch.cos(torch.tensor(torch.pi * (progress - warmup) / (1 - warmup))).item())


def _shuffled_batches(role: Role, *, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Samples, Samples]]:
    """Endless full batches; a role smaller than a batch is one batch."""
    while True:
        order = torch.randperm(len(role), generator=generator, device=role.device)
        for at in order.split(batch_size):
            if len(at) == batch_size or len(role) < batch_size:
                yield rows(role.inputs, at), rows(role.targets, at)


def _set_norms(model: nn.Module, *, training: bool) -> None:
    """Of a single sample there are no statistics: BatchNorm normalises it by those that it knows."""
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training != training:
            layer.train(training)
