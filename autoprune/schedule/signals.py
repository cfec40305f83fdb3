"""What can be seen of a network while it trains and is pruned: named, relative numbers that mean the same anywhere."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.schedule.engine import PruningRun
from autoprune.task.samples import loaded, rows
from autoprune.task.task import Role, outputs_of

SAMPLES = 256  # of the calibration role
NOISES = {"noise_1": 0.01, "noise_5": 0.05}  # of every weight, relative to its size
BOUND = 10.0  # features are cut off at it
PARTS = 10  # removals that would lead to the target from dense, each of the same share of what is left: one step more

FEATURES: Mapping[str, str] = {
    "density": "logarithm of the density over that of the target: 0 dense, 1 at the target",
    "decisions_left": "share of the decisions that are still to be made",
    "training_left": "share of the training budget that is not spent",
    "learning_rate": "over the highest of its curve",
    "loss": "mean training loss of the last steps, over that of the first ones",
    "loss_slope": "its change over those steps, relative to it",
    "still_falling": "share of the held-out loss at the beginning of the interval that its training took away",
    "held_out_loss": "on calibration samples, over that of the network before training",
    "drop": "by how much the last removal raised the held-out loss, relative to it",
    "recovered": "share of that drop that training made good since",
    "noise_1": "rise of the held-out loss under relative weight noise of 1 %",
    "noise_5": "the same of 5 %",
    "lookahead_step": "rise of the held-out loss if a tenth of the way from dense to the target were pruned now",
    "lookahead_target": "rise of the held-out loss if the target were reached now",
    "effective_rank": "of what the output layer reads, over its width (exponential of the spectrum's entropy)",
    "movement": "how far the weights moved over the interval, relative to their norm",
    "mask_overlap": "share of the weights that stay which had stayed before the last decision",
}

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Signals:
    """The features of one moment, and what the next ones are relative to."""

    values: Mapping[str, float]
    """Feature → its value, in [−10, 10]."""
    lookahead: float
    """The held-out loss if the target were reached now: what rewards may be shaped by."""

    @property
    def array(self) -> FloatArray:
        """Returns the values in the order of FEATURES."""
        return np.array([self.values[name] for name in FEATURES], np.float32)


@dataclass(slots=True)
class SignalMeter:
    """Measures one run; `removed` is to be called between a decision and its training."""

    run: PruningRun
    """What is measured."""
    decisions: int
    """In an episode."""
    role: Role = field(init=False)
    """The samples that losses are measured on."""
    memory: dict[str, float] = field(default_factory=dict)
    """Losses that later ones are relative to; JSON values."""
    before: dict[str, Tensor] = field(default_factory=dict)
    """Weights at the beginning of the interval."""

    def __post_init__(self) -> None:
        self.role = self.run.task.data.calibration[:SAMPLES]
        first = self.loss()
        self.memory = {"first": first, "before": first, "after": first}
        self.before = self._weights()

    def removed(self) -> None:
        """A decision was carried out, and nothing was trained since."""
        self.memory |= {"before": self.memory.get("now", self.memory["first"]), "after": self.loss()}
        self.before = self._weights()

    def measure(self) -> Signals:
        """Returns the signals of now."""
        run, memory = self.run, self.memory
        clock = run.training.clock
        now = memory["now"] = self.loss()
        target = run.target / run.masking.total
        recent = clock.losses[-10:] or (memory["first"],)
        earlier = clock.losses[:-10] or recent
        drop = memory["after"] - memory["before"]
        lookahead = self._pruned_loss(target)
        step = max(target, run.density * target ** (1 / PARTS))
        values = {
            "density": math.log(run.density) / math.log(target) if target < 1 else 1.0,
            "decisions_left": 1 - run.decisions / self.decisions,
            "training_left": 1 - run.progress,
            "learning_rate": run.recipe.rate(clock.position) / run.recipe.learning_rate,
            "loss": float(np.mean(recent)) / self._scale("first_training", float(np.mean(recent))),
            "loss_slope": (float(np.mean(recent)) - float(np.mean(earlier))) / max(float(np.mean(earlier)), 1e-9),
            "still_falling": (memory["after"] - now) / max(memory["after"], 1e-9),
            "held_out_loss": now / max(memory["first"], 1e-9),
            "drop": drop / max(memory["before"], 1e-9),
            "recovered": (memory["after"] - now) / drop if drop > 1e-6 else 1.0,
            **{name: self._noisy_loss(size) / max(now, 1e-9) - 1 for name, size in NOISES.items()},
            "lookahead_step": self._pruned_loss(step) / max(now, 1e-9) - 1,
            "lookahead_target": lookahead / max(now, 1e-9) - 1,
            "effective_rank": self._effective_rank(),
            "movement": self._movement(),
            "mask_overlap": run.overlap,
        }
        finite = {name: value if math.isfinite(value) else BOUND for name, value in values.items()}
        return Signals(
            {name: max(-BOUND, min(BOUND, value)) for name, value in finite.items()},
            lookahead if math.isfinite(lookahead) else BOUND,
        )

    def loss(self, role: Role | None = None) -> float:
        """Returns the loss on calibration samples, or on another role; a bound where it is not finite."""
        value = loss_of(self.run, self.role if role is None else role)
        return value if math.isfinite(value) else BOUND * 10

    def _scale(self, name: str, value: float) -> float:
        """The first value of that name that there was."""
        return max(self.memory.setdefault(name, value), 1e-9)

    def _pruned_loss(self, density: float) -> float:
        """The loss if the network were pruned to that density now."""
        run, training = self.run, self.run.training
        count = max(run.target, run.masking.count(density))
        masks = run.masking.final(training.weights, count=count)
        with self._weights_changed({name: training.parameters[name] * mask for name, mask in masks.items()}):
            return self.loss()

    def _noisy_loss(self, size: float) -> float:
        generator = torch.Generator().manual_seed(0)  # the same noise every time
        changed = {
            name: value * (1 + size * torch.randn(value.shape, generator=generator).to(value.device))
            for name, value in self.run.training.parameters.items()
            if value.ndim > 1
        }
        with self._weights_changed(changed):
            return self.loss()

    @contextmanager
    def _weights_changed(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        parameters = self.run.training.parameters
        saved = {name: parameters[name].detach().clone() for name in values}
        with torch.no_grad():
            try:
                for name, value in values.items():
                    parameters[name].copy_(value)
                yield
            finally:
                for name, value in saved.items():
                    parameters[name].copy_(value)

    def _effective_rank(self) -> float:
        """exp(entropy of the normalised singular values) (Roy & Vetterli, 2007) of the output layer's inputs."""
        output = next((layer for layer in reversed(self.run.masking.layers) if layer.output), None)
        if output is None:
            return 0.0
        seen: list[Tensor] = []

        def note(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            seen.append(arguments[0].detach())

        module = self.run.model.get_submodule(output.parameter.rpartition(".")[0])
        with module.register_forward_pre_hook(note):
            outputs_of(self.run.model.eval(), self.role.inputs, self.run.task.forward)
        if not seen:  # part of an attention that runs as one operator
            return 0.0
        features = seen[0].movedim(1, -1) if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) else seen[0]
        features = features.float().flatten(0, -2)[:SAMPLES]
        if not torch.isfinite(features).all():
            return 0.0
        values = torch.linalg.svdvals(features - features.mean(dim=0))
        shares = values / values.sum().clamp(min=1e-12)
        entropy = -(shares * shares.clamp(min=1e-12).log()).sum()
        return float(entropy.exp()) / min(features.shape)

    def _movement(self) -> float:
        now = self._weights()
        moved = sum(float((now[name] - value).square().sum()) for name, value in self.before.items())
        norm = sum(float(value.square().sum()) for value in self.before.values())
        return math.sqrt(moved / norm) if norm else 0.0

    def _weights(self) -> dict[str, Tensor]:
        parameters = self.run.training.parameters
        return {name: parameters[name].detach().clone() for name in self.run.training.masks}


@torch.no_grad()
def loss_of(run: PruningRun, role: Role) -> float:
    """Returns the task's loss of the network as it is, on a role.

    Args:
        run: The training that is going on.
        role: The samples that are judged.
    """
    return float(run.task.loss(run.task.forward(run.model.eval(), loaded(role.inputs)), loaded(role.targets)))


def accuracy_of(run: PruningRun, role: Role) -> float:
    """Returns the task's metric of the network as it is, on a role.

    Args:
        run: The training that is going on.
        role: The samples that are judged.
    """
    outputs = outputs_of(run.model.eval(), rows(role.inputs, slice(None)), run.task.forward)
    return float(run.task.metric(outputs, role.targets))
