"""A short fine-tuning before a plan is judged: the expensive truth, for when the cheap scores are in doubt."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.evaluation.candidates import Candidates
from autoprune.identity import identity_of
from autoprune.ranges import Count, Positive, check_fields
from autoprune.structure.axes import Kept
from autoprune.task.task import Task
from autoprune.task.training import fit, runs_in_bf16


@dataclass(frozen=True, slots=True)
class ShortTraining:
    """A network that was shrunk and repaired is trained for some steps on the train role before it is judged.

    Every plan sees the same batches in the same order. It costs about a hundred times what judging alone does, and
    plans are never raced.
    """

    steps: Count
    """Of the optimizer, at least 1."""
    learning_rate: Positive
    """Of SGD, above 0."""
    batch_size: Count = 128
    """Samples in a step, at least 1."""

    def __post_init__(self) -> None:
        check_fields(self, "evaluation.training")

    def identity(self, task: Task) -> dict[str, Any]:
        """What the training depends on: JSON values."""
        return {**asdict(self), "train": task.data.train.digest, "augment": identity_of(task.augment)}


@dataclass(frozen=True, slots=True)
class TrainedNetworks:
    """Plan → its network after the short training. It can be sent to another process."""

    training: ShortTraining
    """How every plan's network is trained."""
    candidates: Candidates
    """The networks before it."""

    def __call__(self, kept: Kept) -> nn.Module:
        task = self.candidates.task
        network = self.candidates.pruned(self.candidates.structure.plan(np.array(kept)))
        with torch.random.fork_rng(devices=[task.device] if task.device.type == "cuda" else []):
            torch.manual_seed(0)  # Dropout draws from torch's own generator
            fit(
                network,
                task.data.train,
                loss=lambda outputs, _, targets: task.loss(outputs, targets),
                steps=self.training.steps,
                learning_rate=self.training.learning_rate,
                batch_size=self.training.batch_size,
                generator=torch.Generator().manual_seed(0),
                augment=task.augment,
                forward=task.forward,
                bf16=runs_in_bf16(network, task.data.train.inputs, task.forward),
            )
        return network
