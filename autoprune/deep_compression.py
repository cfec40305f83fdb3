"""Prune, share, code: Deep Compression (Han et al., arXiv 1510.00149) from a trained network to one small file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from autoprune.coding.coded_tensor import TensorParts, parts_of
from autoprune.evaluation.judge import Judge
from autoprune.export.apz import bits_of, save_apz, state_of
from autoprune.quantize.codebook import Initialisation
from autoprune.quantize.quantized_network import quantize_codebook
from autoprune.quantize.shared_weights import quantizable
from autoprune.ranges import Count, Natural, Positive, Share, check_fields
from autoprune.repair.output_codes import codes_by_outputs
from autoprune.schedule.decision import PruningGoal
from autoprune.schedule.engine import OnInterval, train_pruned
from autoprune.schedule.masked_training import TrainingRecipe
from autoprune.schedule.schedules import cubic
from autoprune.task.task import Task

FP32 = 4  # bytes of a parameter of the dense network, which all ratios are over


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionSettings:
    """How a network is compressed. A density of 1 quantizes alone; bits of None prune alone."""

    density: Share = 0.08
    """Share of the weights of convolutions and linear layers that is kept, by one threshold for all."""
    bits: Count | None = 5
    """Of a linear layer's codes, 1 to 8."""
    convolution_bits: Count | None = 8
    """Of a convolution's codes."""
    initialisation: Initialisation = "linear"
    """Of centroids: "linear", "density" or "random"."""
    pruning_steps: Natural = 3000
    """Of training while weights go, in steps of the dense network."""
    centroid_steps: Natural = 600
    """Of training centroids."""
    assignment: Literal["nearest", "outputs"] = "nearest"
    """Which centroid a weight takes: the nearest, or that by which its layer's outputs change least, which needs
    `centroid_steps=0`: training moves centroids by their codes."""
    learning_rate: Positive = 0.001
    """AdamW's, while weights go; centroids are trained at a half of it."""

    def __post_init__(self) -> None:
        check_fields(self, "settings")


@dataclass(frozen=True, slots=True)
class LayerSizes:
    """A row of the paper's table."""

    name: str
    """The layer's."""
    weights: int
    """Of the dense layer."""
    kept: int
    """That are not zero."""
    parts: TensorParts
    """Where the bytes of its weight go."""
    bytes: int
    """Of its coded weight."""

    def as_json(self) -> dict[str, Any]:
        """Returns the row, with bits per kept weight before and after coding."""
        kept, parts = max(self.kept, 1), self.parts
        return {
            **asdict(self),
            "coded_value_bits": 8 * parts.codes / kept,
            "coded_index_bits": 8 * parts.positions / kept,
        }


@dataclass(frozen=True, slots=True)
class CompressedNetwork:
    """What compression came to."""

    network: nn.Module
    """In eval mode: what the file holds."""
    bytes: int
    """Of the file."""
    dense_bytes: int
    """Of the dense network's parameters at fp32."""
    layers: tuple[LayerSizes, ...]
    """The paper's table."""
    accuracy: Mapping[str, float]
    """On the test role: dense, pruned, quantized."""

    @property
    def ratio(self) -> float:
        """Returns how many times the file is smaller than the dense network's parameters."""
        return self.dense_bytes / self.bytes

    def as_json(self) -> dict[str, Any]:
        """Returns everything but the network."""
        return {
            "bytes": self.bytes,
            "dense_bytes": self.dense_bytes,
            "ratio": self.ratio,
            "accuracy": dict(self.accuracy),
            "layers": [layer.as_json() for layer in self.layers],
        }


def deep_compression(
    task: Task,
    path: Path,
    settings: CompressionSettings | None = None,
    *,
    seed: int = 0,
    on_interval: OnInterval | None = None,
) -> CompressedNetwork:
    """Returns the network that was pruned with retraining, quantized with trained centroids and written to a file.

    Args:
        task: Its trained network stays as it is.
        path: Of the `.apz` file.
        settings: None: the defaults.
        seed: Of the samples' order, and of random centroids.
        on_interval: Called with the record of each interval between removals.

    Raises:
        ValueError: A setting is out of range.
        FloatingPointError: A loss is not finite.
    """
    settings = CompressionSettings() if settings is None else settings
    if settings.assignment == "outputs" and settings.centroid_steps and settings.bits is not None:
        raise ValueError(
            f"assignment='outputs' chooses codes anew, and centroid_steps={settings.centroid_steps} would have trained "
            "centroids for others; give centroid_steps=0"
        )
    pruned = prune_gradually(task, settings, seed=seed, on_interval=on_interval)
    return quantize_and_write(task, pruned, path, settings, seed=seed)


def quantize_and_write(
    task: Task, pruned: nn.Module, path: Path, settings: CompressionSettings, *, seed: int
) -> CompressedNetwork:
    """Returns the pruned network with trained codebooks, or as it is, which the file then holds.

    Args:
        task: What the dense network is taken from, and accuracies.
        pruned: Stays as it is.
        path: Of the `.apz` file.
        settings: Bits, and how centroids are trained.
        seed: Of the samples' order, and of random centroids.
    """
    judge = Judge(task, task.data.test)
    accuracy = {"dense": float(judge(task.model).accuracy), "pruned": float(judge(pruned).accuracy)}
    network = pruned
    if settings.bits is not None:
        network = quantize_codebook(
            pruned,
            task,
            bits=settings.bits,
            convolution_bits=settings.convolution_bits,
            initialisation=settings.initialisation,
            steps=settings.centroid_steps,
            learning_rate=settings.learning_rate / 2,
            batch_size=TrainingRecipe().batch_size,
            generator=torch.Generator().manual_seed(seed),
        )
        if settings.assignment == "outputs":
            network = codes_by_outputs(network, pruned, task)
    accuracy["quantized"] = float(judge(network).accuracy)
    size = save_apz(network, path, architecture=task.architecture)
    dense_bytes = FP32 * sum(parameter.numel() for parameter in task.model.parameters())
    return CompressedNetwork(network, size, dense_bytes, layer_sizes(network), accuracy)


def layer_sizes(network: nn.Module) -> tuple[LayerSizes, ...]:
    """Returns where the bytes of every convolution's and linear layer's weight go in an `.apz` file."""
    state, rows = state_of(network), []
    for name in quantizable(network):
        weight = state[f"{name}.weight" if name else "weight"]
        parts = parts_of(bits_of(weight))
        coded = parts.positions + parts.table + parts.codes
        rows.append(LayerSizes(name, weight.numel(), int(weight.count_nonzero()), parts, coded))
    return tuple(rows)


def prune_gradually(
    task: Task, settings: CompressionSettings, *, seed: int, on_interval: OnInterval | None = None
) -> nn.Module:
    """Returns the trained network with `density` of its weights, trained while they went; at 1 it is the dense one.

    Args:
        task: Its trained network stays as it is.
        settings: The density, and how long it is trained.
        seed: Of the samples' order.
        on_interval: Called with the record of each interval between removals.
    """
    if settings.density == 1:
        return task.model
    if not settings.pruning_steps:
        raise ValueError("pruning_steps=0 leaves the network dense; give steps, or a density of 1")
    goal = PruningGoal(density=settings.density, steps=settings.pruning_steps, counted="steps", start="trained")
    recipe = TrainingRecipe(optimizer="adamw", learning_rate=settings.learning_rate, weight_decay=1e-4)
    schedule = cubic(start=0.02, end=0.6, decisions=20)
    return train_pruned(task, schedule, goal, recipe=recipe, seed=seed, on_interval=on_interval).network
