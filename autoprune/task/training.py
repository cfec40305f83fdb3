"""One training loop: the zoo is made with it, and recovery after pruning uses it."""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from autoprune.task.given_functions import with_gradient
from autoprune.task.samples import (
    Samples,
    channels_first,
    cut,
    images_last,
    in_float32,
    leaves,
    mapped,
    number_of,
    rows,
    samples_within,
)
from autoprune.task.task import Forward, Role, plain_forward

Augment = Callable[[Any, torch.Generator], Any]
Optimizer = Literal["sgd", "adamw"]
AVX2_FLOATS = 8  # numbers that a register of AVX2 holds


def fit(  # noqa: PLR0913 - keyword-only settings of an optimiser
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
    Dropout draws from numbers of its own, seeded as `generator` was. Weights of a matrix that are zero stay zero,
    unless all are: a network that has lost single weights is as sparse afterwards.

    Args:
        model: The network, on the device of the role.
        role: The samples that it learns from.
        loss: (outputs, inputs, targets) → scalar tensor; inputs are what the network saw, after augmentation.
        steps: Of the optimiser; 0 trains nothing.
        learning_rate: At the peak of the schedule, above 0.
        generator: Draws batches and augmentation.
        batch_size: Samples in a step, at least 1.
        momentum: Nesterov's, in [0, 1); with adamw β₁.
        weight_decay: Of the optimiser, at least 0.
        warmup: The fraction of the steps in which the rate rises, in [0, 1].
        optimizer: "sgd" with Nesterov momentum, or "adamw" (arXiv 1711.05101).
        clip_norm: The longest gradient; None for any length.
        augment: (inputs, generator) → inputs; None for none.
        bf16: Whether to autocast to bfloat16.
        forward: (network, inputs) → outputs: how the network is called.
        on_step: Called with (step, steps, loss) after every step.

    Raises:
        FloatingPointError: The loss is not finite.
        ValueError: All parameters are frozen.
    """
    settings = LoopSettings(
        batch_size=batch_size,
        optimizer=optimizer,
        momentum=momentum,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        bf16=bf16,
    )
    loop = TrainingLoop(model, role, settings, loss=loss, generator=generator, augment=augment, forward=forward)
    device, sparse = role.device, [(weight, weight.detach() != 0) for weight in loop.trained if _is_sparse(weight)]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(generator.initial_seed())
        model.train()
        for step in range(steps):
            value = loop.step(learning_rate * one_cycle(step / steps, warmup=warmup), of=steps)
            for weight, stays in sparse:
                weight.data.mul_(stays)
            if on_step is not None:
                on_step(step + 1, steps, value)
    model.eval()


def _is_sparse(weight: Tensor) -> bool:
    return weight.ndim > 1 and 0 < int(weight.count_nonzero()) < weight.numel()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSettings:
    """What each step of training does, but for how long it is."""

    batch_size: int = 128
    """Samples in a step."""
    optimizer: Optimizer = "sgd"
    """"sgd" with Nesterov momentum, or "adamw" (arXiv 1711.05101)."""
    momentum: float = 0.9
    """Of SGD; β₁ of AdamW."""
    weight_decay: float = 5e-4
    """Added to gradients by SGD, taken off weights by AdamW."""
    clip_norm: float | None = None
    """The longest gradient."""
    bf16: bool = False
    """Autocast to bfloat16."""


class TrainingLoop:
    """A network in training, one step of the optimizer at a time; all that the next step depends on can be reached."""

    def __init__(
        self,
        model: nn.Module,
        role: Role,
        settings: LoopSettings,
        *,
        loss: Callable[[Any, Any, Any], Tensor],
        generator: torch.Generator,
        augment: Augment | None = None,
        forward: Forward = plain_forward,
    ) -> None:
        """Makes the optimizer; nothing is drawn yet.

        Args:
            model: Whose parameters that require gradients are trained, in place; its caller puts it in training mode.
            role: The samples.
            settings: Optimizer and batches.
            loss: (outputs, inputs as the network saw them, targets) → a scalar.
            generator: Draws the order of samples and the augmentation, on the samples' device.
            augment: (inputs, generator) → inputs.
            forward: How the network is called.
        """
        self.model, self.settings, self.loss, self.augment, self.forward = model, settings, loss, augment, forward
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not self.trained:
            raise ValueError("all of its parameters are frozen (requires_grad=False), so there is nothing to train")
        self._channels_last = may_be_channels_last(model)
        if not self._channels_last:
            for parameter in model.parameters():
                parameter.data = channels_first(parameter.data)
        self.optimizer = _optimiser(model, self.trained, settings)
        self._norms = [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
        self.batches = ShuffledBatches(role, batch_size=settings.batch_size, generator=generator)
        self.steps = 0

    def step(
        self, learning_rate: float, *, of: int | None = None, edit_gradients: Callable[[], None] | None = None
    ) -> float:
        """The network has made one more step; returns the loss before it.

        Args:
            learning_rate: Of this step.
            of: How many there will be, for the message.
            edit_gradients: Called when the gradients stand, before they are clipped.

        Raises:
            FloatingPointError: The loss is not finite; the step was not made.
        """
        inputs, targets = next(self.batches)
        if self.augment is not None:
            inputs = self.augment(inputs, self.batches.generator)
        value = self.backward(inputs, targets)
        loss = value.item()
        if not math.isfinite(loss):
            at = f"step {self.steps}" if of is None else f"step {self.steps} of {of}"
            raise FloatingPointError(f"the training loss is {loss} at {at}; lower the learning rate")
        if edit_gradients is not None:
            edit_gradients()
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.trained, self.settings.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self._begin_momentum()
        self.optimizer.step()
        self.steps += 1
        return loss

    def backward(self, inputs: Samples, targets: Samples) -> Tensor:
        """The trained parameters hold the gradients of these samples' loss, which is returned.

        Large samples, such as images of 224², go through the network in parts, whose gradients add up: what a pass
        backwards needs of each is 50 MB and more. BatchNorm then normalises by a part.

        Args:
            inputs: What the network reads [N, ...].
            targets: What outputs are compared with.
        """
        self.optimizer.zero_grad(set_to_none=True)
        number = number_of(inputs)
        parts = [inputs], [targets]
        if (size := samples_within(inputs, number)) < number:
            own = cut(inputs, size)
            parts = list(own), list(cut(targets, size)) if targets is not None else [None] * len(own)
        shares = [number_of(part) / number for part in parts[0]]
        return torch.stack([self._part_backward(*part) for part in zip(*parts, shares, strict=True)]).sum()

    def _part_backward(self, inputs: Samples, targets: Samples, share: float) -> Tensor:
        """Adds the gradients of the part's share of the loss, which is returned."""
        inputs = images_last(inputs) if self._channels_last else mapped(inputs, channels_first)
        several = number_of(inputs) > 1
        for norm in self._norms:  # of a single sample there are no statistics: those that it knows are used
            if norm.training != several:
                norm.train(several)
        device = self.batches.role.device.type
        with torch.autocast(device, dtype=torch.bfloat16) if self.settings.bf16 else nullcontext():
            value = self.loss(in_float32(self.forward(self.model, inputs)), inputs, targets)
        value = with_gradient(value) * share
        value.backward()
        return value.detach()

    def _begin_momentum(self) -> None:
        """Of a weight whose first gradient comes later than others': the fused step takes all or none to be new."""
        if self.settings.optimizer == "sgd" and self.settings.momentum and self.optimizer.defaults["fused"]:
            for parameter in self.trained:
                if parameter.grad is not None and "momentum_buffer" not in self.optimizer.state[parameter]:
                    self.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


class ShuffledBatches:
    """Endless full batches of a role, in orders that are drawn anew; a role smaller than a batch is one batch."""

    def __init__(self, role: Role, *, batch_size: int, generator: torch.Generator) -> None:
        self.role, self.generator = role, generator
        self.batch_size = min(batch_size, len(role))
        self.order: Tensor | None = None
        """The rows of this pass over the samples; None before the first one."""
        self.at = 0
        """How many of them were seen."""

    def __iter__(self) -> Iterator[tuple[Samples, Samples]]:
        return self

    def __next__(self) -> tuple[Samples, Samples]:
        if self.order is None or self.at + self.batch_size > len(self.role):
            drawn = torch.randperm(len(self.role), generator=self.generator, device=self.generator.device)
            self.order = drawn.to(self.role.device)  # the same order on every device
            self.at = 0
        at = self.order[self.at : self.at + self.batch_size]
        self.at += self.batch_size
        return rows(self.role.inputs, at), rows(self.role.targets, at)


def flip(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors each image [N, C, H, W] left–right with probability one half.

    Args:
        inputs: What is read.
        generator: Draws all that is random here.
    """
    mirrored = torch.rand(len(inputs), generator=generator, device=generator.device).to(inputs.device) < 0.5
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


def may_be_channels_last(network: nn.Module) -> bool:
    """Whether a network can be trained on images and kernels in the layout that is the faster one on a CPU.

    On CPUs with AVX2 and no AVX-512, oneDNN's gradient of a strided 1×1 convolution that reads fewer than 8 channels in
    that layout writes past its memory, never ends or is wrong (uxlfoundation/oneDNN issue 6035).

    Args:
        network: That is trained.
    """
    return torch.backends.cpu.get_cpu_capability() != "AVX2" or not any(
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and layer.stride != (1, 1)
        and layer.in_channels // layer.groups < AVX2_FLOATS
        for layer in network.modules()
    )


def runs_in_bf16(network: nn.Module, inputs: Samples, forward: Forward) -> bool:
    """Whether the device computes in bfloat16 itself, and all of the network's operators do (an FFT does not).

    Args:
        network: The network.
        inputs: What the network reads [N, ...].
        forward: (network, inputs) → outputs: how the network is called.
    """
    device = leaves(inputs)[0].device
    if not supports_bf16(device):
        return False
    try:
        with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
            forward(network, rows(inputs, slice(0, 2)))
    except Exception:  # whatever an operator says that lacks this precision
        return False
    return True


def one_cycle(progress: float, *, warmup: float) -> float:
    """The learning rate's factor: linearly up over the first `warmup` of progress in [0, 1], then down a cosine.

    Args:
        progress: The share of the steps that is done, in [0, 1].
        warmup: The share of the steps in which the rate rises, in [0, 1].
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + torch.cos(torch.tensor(torch.pi * (progress - warmup) / (1 - warmup))).item())


def _optimiser(model: nn.Module, parameters: list[nn.Parameter], settings: LoopSettings) -> torch.optim.Optimizer:
    momentum = settings.momentum
    fused = _fusible(parameters) and not any(getattr(layer, "sparse", False) for layer in model.modules())
    common: dict[str, Any] = {"lr": 0.0, "weight_decay": settings.weight_decay, "fused": fused}
    match settings.optimizer:
        case "sgd":
            return torch.optim.SGD(parameters, momentum=momentum, nesterov=momentum > 0, **common)
        case "adamw":
            return torch.optim.AdamW(parameters, betas=(momentum, 0.999), **common)
    raise ValueError(f"optimizer must be 'sgd' or 'adamw', got {settings.optimizer!r}")


def _fusible(parameters: list[nn.Parameter]) -> bool:
    """Whether one pass over the memory can make a step; a CPU's takes weights for rows of numbers without gaps."""
    layouts = (torch.contiguous_format, torch.channels_last)
    return all(
        each.device.type in ("cpu", "cuda")
        and each.is_floating_point()
        and any(each.is_contiguous(memory_format=layout) for layout in layouts[: 1 + (each.ndim == 4)])
        for each in parameters
    )
