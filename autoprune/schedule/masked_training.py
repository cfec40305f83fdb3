"""A training run under masks: all that its next step depends on can be copied, forked, saved and resumed."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors
import safetensors.torch
import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn

from autoprune.files import atomic_write
from autoprune.ranges import Count, FiniteNonNegative, FinitePositive, Fraction, Positive, check_fields
from autoprune.schedule.weight_masks import MaskedLayer, MaskedWeights, Masks
from autoprune.task.copies import copied
from autoprune.task.task import Task
from autoprune.task.training import LoopSettings, Optimizer, TrainingLoop, one_cycle

RECENT = 20  # losses of the last steps that a state tells the mean of


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecipe:
    """How a network is trained while it is pruned, the same for every schedule."""

    learning_rate: FinitePositive = 0.05
    """The highest of the curve."""
    batch_size: Count = 128
    """Samples in a step."""
    optimizer: Optimizer = "sgd"
    """"sgd" with Nesterov momentum, or "adamw"."""
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    """Of SGD; β₁ of AdamW."""
    weight_decay: FiniteNonNegative = 5e-4
    """Of every parameter that is trained."""
    curve: Literal["one_cycle", "constant"] = "one_cycle"
    """Of the learning rate over the training budget, or over a round: up and down a cosine, or always the highest."""
    warmup: Fraction = 0.1
    """Share of the curve on which the learning rate rises linearly."""
    clip_norm: Positive | None = None
    """The longest gradient."""
    bf16: bool = False
    """Autocast to bfloat16."""

    def __post_init__(self) -> None:
        check_fields(self, "recipe")

    @property
    def loop(self) -> LoopSettings:
        """What the training loop is told."""
        return LoopSettings(
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            bf16=self.bf16,
        )

    def rate(self, position: float) -> float:
        """Returns the learning rate at a position in [0, 1] of the curve."""
        return self.learning_rate * (1.0 if self.curve == "constant" else one_cycle(position, warmup=self.warmup))


@dataclass(frozen=True, slots=True)
class Clock:
    """What was trained so far: JSON values."""

    step: int = 0
    """Steps made, rewound ones included."""
    cycle_step: int = 0
    """Steps since initialisation along the weights' own line: rewinding sets it back."""
    position: float = 0.0
    """On the learning-rate curve, in [0, 1]."""
    spent: float = 0.0
    """Of the training budget, in steps of the dense network."""
    macs: float = 0.0
    """Training MACs so far over those of one step of the dense network, whatever the budget is counted in."""
    losses: tuple[float, ...] = ()
    """Of the last steps."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that the next step of a training run depends on."""

    tensors: Mapping[str, Tensor]
    """Weights, buffers, optimizer, masks, points to rewind to, generators' states and the order of samples, by name."""
    numbers: Mapping[str, Any]
    """The rest: JSON values."""

    def save(self, path: Path) -> None:
        """One safetensors file holds it, whole, on the disk."""
        data = safetensors.torch.save(
            {name: tensor.contiguous() for name, tensor in self.tensors.items()},
            metadata={"training": json.dumps(self.numbers)},
        )
        with atomic_write(path, durable=True) as partial:
            partial.write_bytes(data)

    @classmethod
    def load(cls, path: Path) -> "Snapshot":
        """Returns what `save` wrote. Raises ValueError where the file is another one or damaged."""
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                numbers = json.loads((file.metadata() or {})["training"])
                return cls({name: file.get_tensor(name) for name in file.keys()}, numbers)  # noqa: SIM118
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"{path} is no training that can be resumed: {error}") from error


@dataclass(eq=False)
class Training:
    """A network in training under masks.

    Masked weights are exactly 0 and stay so: their gradients are zeroed and their momentum is forgotten. Two runs from
    equal snapshots are equal bit for bit on one machine and number of threads.
    """

    task: Task
    """Its train role, loss, augmentation and way of calling are used; its model is not."""
    model: nn.Module
    """What is trained, in place."""
    layers: tuple[MaskedLayer, ...]
    """By whose masks MACs are counted."""
    recipe: TrainingRecipe
    """Optimizer and learning rate."""
    seed: int
    """Of the order of samples, augmentation, dropout and random choices."""
    masks: Masks = field(default_factory=dict)
    """Parameter → which of its entries stay."""
    clock: Clock = field(default_factory=Clock)
    """What was spent so far, and the place on the learning-rate curve."""
    points: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    """Step → the network's state then, to be rewound to."""
    positions: dict[int, float] = field(default_factory=dict)
    """Step → where the learning-rate curve was then."""

    def __post_init__(self) -> None:
        task, device = self.task, self.task.data.train.device
        generator = torch.Generator(device).manual_seed(self.seed)
        self.chance = torch.Generator().manual_seed(self.seed + 1)  # random removal and growth
        self.loop = TrainingLoop(
            self.model,
            task.data.train,
            self.recipe.loop,
            loss=self._loss,
            generator=generator,
            augment=task.augment,
            forward=task.forward,
        )
        self.parameters = dict(self.model.named_parameters())
        self._dropout = torch.Generator().manual_seed(self.seed + 2).get_state()
        self._dense_macs = sum(layer.positions * layer.weights for layer in self.layers)
        self._factors: list[tuple[nn.Parameter, Tensor]] = []
        self.set_masks(self.masks)
        if not self.points:
            self.save_point()

    @property
    def relative_macs(self) -> float:
        """A step's MACs over those of the dense network's."""
        kept = sum(layer.positions * (self._kept.get(layer.parameter, layer.weights)) for layer in self.layers)
        return kept / self._dense_macs

    @property
    def weights(self) -> MaskedWeights:
        """The weights as they are, and what else masks are chosen by."""
        return MaskedWeights(self.parameters, self.masks, self.chance)

    def set_masks(self, masks: Masks) -> None:
        """Weights outside the masks are 0, and so is the momentum of all that went or came."""
        before = self.masks
        self.masks = {name: mask.clone() for name, mask in masks.items()}
        self._kept = {name: int(mask.sum()) for name, mask in masks.items()}
        self._factors = []
        with torch.no_grad():
            for name, mask in self.masks.items():
                parameter = self.parameters[name]
                here = mask.to(parameter.device)
                parameter.masked_fill_(~here, 0.0)
                changed = ~here if name not in before else ~here | ~before[name].to(parameter.device)
                for value in self.loop.optimizer.state.get(parameter, {}).values():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        value.masked_fill_(changed, 0.0)
                if self._kept[name] < mask.numel() and parameter.requires_grad:
                    self._factors.append((parameter, here.to(parameter.dtype)))

    def advance(self, *, cost: float, macs: float, rate: float) -> float:
        """One step is made; returns its loss.

        Args:
            cost: What the step spends of the training budget, in steps of the dense network.
            macs: Its MACs over those of a step of the dense network.
            rate: The learning rate.

        Raises:
            FloatingPointError: The loss is not finite; the step was not made.
        """
        loss = self.loop.step(rate, edit_gradients=self._mask_gradients)
        clock = self.clock
        self.clock = replace(
            clock,
            step=clock.step + 1,
            cycle_step=clock.cycle_step + 1,
            spent=clock.spent + cost,
            macs=clock.macs + macs,
            losses=(*clock.losses[1 - RECENT :], loss),
        )
        return loss

    @contextmanager
    def training_mode(self) -> Iterator[None]:
        """The network is in training mode, and dropout draws from this run's numbers, while the context is open."""
        before = torch.get_rng_state()
        torch.set_rng_state(self._dropout)
        self.model.train()
        try:
            yield
        finally:
            self._dropout = torch.get_rng_state()
            torch.set_rng_state(before)
            self.model.eval()

    def gradients(self) -> dict[str, Tensor]:
        """Returns the gradient of every masked parameter on the next batch, removed weights included; nothing moves.

        It costs a step of the dense network.
        """
        state = self.loop.batches.generator.get_state()
        order, at = self.loop.batches.order, self.loop.batches.at
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        with self.training_mode():
            self.loop.backward(*next(self.loop.batches))
        self.loop.batches.generator.set_state(state)
        self.loop.batches.order, self.loop.batches.at = order, at
        with torch.no_grad():
            for name, buffer in self.model.named_buffers():  # BatchNorm's statistics
                buffer.copy_(buffers[name])
        gradients = {
            name: torch.zeros_like(self.parameters[name]) if (grad := self.parameters[name].grad) is None else grad
            for name in self.masks
        }
        return {name: gradient.detach().clone() for name, gradient in gradients.items()}

    def save_point(self) -> None:
        """The weights of now can be rewound to, by the number of steps along their line."""
        at = self.clock.cycle_step
        self.points[at] = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.positions[at] = self.clock.position

    def rewind(self, step: int, *, weights: bool) -> None:
        """The learning rate, and with `weights` the network and its optimizer, are as they were after so many steps.

        Args:
            step: Of the optimizer, from 0.
            weights: Whether the network and the optimizer go back too, or the learning rate only.

        Raises:
            ValueError: That point was not saved.
        """
        if step not in self.points:
            raise ValueError(
                f"rewinding to step {step} needs the weights of that step, and those that were saved are of steps "
                f"{sorted(self.points)}; let the first decision name it in save_steps, or rewind to one of these"
            )
        if weights:
            self.model.load_state_dict(self.points[step])
            self.loop.optimizer.state.clear()
            self.clock = replace(self.clock, cycle_step=step)
            self.set_masks(self.masks)
        self.clock = replace(self.clock, position=self.positions[step])

    def snapshot(self) -> Snapshot:
        """Returns a copy of everything that the next step depends on."""
        batches = self.loop.batches
        tensors = {f"model/{name}": value.detach().clone() for name, value in self.model.state_dict().items()}
        tensors |= {f"mask/{name}": mask.clone() for name, mask in self.masks.items()}
        for step, point in self.points.items():  # never changed once saved, so not copied
            tensors |= {f"point/{step}/{name}": value for name, value in point.items()}
        state: dict[str, dict[str, Any]] = {}
        for name, parameter in self.parameters.items():
            for key, value in self.loop.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer/{key}/{name}"] = value.clone()
                else:
                    state.setdefault(name, {})[key] = value
        tensors["random/samples"] = batches.generator.get_state()
        tensors["random/chance"], tensors["random/dropout"] = self.chance.get_state(), self._dropout
        if batches.order is not None:
            tensors["order"] = batches.order.clone()
        clock = {name: getattr(self.clock, name) for name in Clock.__slots__}
        numbers = {"clock": clock, "at": batches.at, "loop_steps": self.loop.steps, "optimizer": state}
        return Snapshot(tensors, {**numbers, "positions": {str(k): v for k, v in self.positions.items()}})

    def restore(self, snapshot: Snapshot) -> None:
        """The run is what it was when the snapshot was taken, of this run or of another one of the same network."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in snapshot.tensors.items():
            kind, _, rest = name.partition("/")
            parts.setdefault(kind, {})[rest] = tensor
        numbers, batches = snapshot.numbers, self.loop.batches
        self.model.load_state_dict(parts["model"])
        self.loop.optimizer.state.clear()
        for key, value in parts.get("optimizer", {}).items():
            kind, _, name = key.partition("/")
            parameter = self.parameters[name]
            self.loop.optimizer.state[parameter][kind] = _laid_out(value, parameter)
        for name, values in numbers["optimizer"].items():
            self.loop.optimizer.state[self.parameters[name]].update(values)
        self.masks = {}
        self.set_masks(parts.get("mask", {}))
        self.points = {}
        for name, tensor in parts.get("point", {}).items():
            step, _, parameter_name = name.partition("/")
            self.points.setdefault(int(step), {})[parameter_name] = tensor
        self.positions = {int(step): float(position) for step, position in numbers["positions"].items()}
        batches.generator.set_state(parts["random"]["samples"])
        self.chance.set_state(parts["random"]["chance"])
        self._dropout = parts["random"]["dropout"].clone()
        batches.order = parts["order"][""].clone() if "order" in parts else None
        batches.at, self.loop.steps = numbers["at"], numbers["loop_steps"]
        clock = dict(numbers["clock"])
        self.clock = Clock(**clock | {"losses": tuple(clock["losses"])})

    def fork(self) -> "Training":
        """Returns another run that goes on from here by itself."""
        other = Training(self.task, copied(self.model), self.layers, self.recipe, self.seed, dict(self.masks))
        other.restore(self.snapshot())
        return other

    def _loss(self, outputs: Any, _: Any, targets: Any) -> Tensor:
        return self.task.loss(outputs, targets)

    def _mask_gradients(self) -> None:
        pairs = [(parameter.grad, factor) for parameter, factor in self._factors if parameter.grad is not None]
        if pairs:
            torch._foreach_mul_([grad for grad, _ in pairs], [factor for _, factor in pairs])


def _laid_out(value: Tensor, parameter: Tensor) -> Tensor:
    """A copy in the parameter's memory layout, which the fused step of an optimizer takes for granted."""
    return (
        torch.empty_like(parameter, dtype=value.dtype).copy_(value) if value.shape == parameter.shape else value.clone()
    )


def initialised(model: nn.Module, *, seed: int) -> nn.Module:
    """Returns a copy of the network with new weights, drawn as its layers draw theirs when they are made.

    Args:
        model: Stays as it is.
        seed: Of the new weights.

    Raises:
        ValueError: A module with parameters of its own has no `reset_parameters`.
    """
    fresh = copied(model)
    stale = [
        name or type(module).__name__
        for name, module in fresh.named_modules()
        if next(module.parameters(recurse=False), None) is not None
        and not (hasattr(module, "reset_parameters") or hasattr(module, "_reset_parameters"))
    ]
    if stale:
        raise ValueError(
            f"the network cannot be initialised anew: {stale} have parameters and no reset_parameters(); give them "
            "one, or begin at the trained weights (start=trained)"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in fresh.modules():
            for reset in ("reset_parameters", "_reset_parameters"):
                if hasattr(module, reset):
                    getattr(module, reset)()
                    break
    return fresh
