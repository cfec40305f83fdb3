"""A short fine-tuning as the score: the expensive truth, for when the cheap scores are in doubt."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.evaluation.candidates import Candidates
from autoprune.evaluation.judge import Score
from autoprune.evaluation.outcome import Metrics
from autoprune.identity import identity_of
from autoprune.structure.axes import Kept
from autoprune.task.task import Task
from autoprune.task.training import fit, supports_bf16


@dataclass(frozen=True, slots=True)
class FineTuned:
    """The score `of` a network that was shrunk, repaired and trained for some steps on the train role.

    Every plan sees the same batches in the same order. It costs about a hundred times what judging alone does, and is
    never raced.
    """

    of: Score
    steps: int
    learning_rate: float
    batch_size: int = 128

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.learning_rate > 0:
            got = f"{self.steps} and {self.learning_rate}"
            raise ValueError(f"score.steps must be at least 1 and score.learning_rate positive, got {got}")

    def __call__(self, metrics: Metrics) -> float:
        return self.of(metrics)

    def trained(self, candidates: Candidates) -> "FineTunedNetworks":
        return FineTunedNetworks(self, candidates)

    def identity(self, task: Task) -> dict[str, Any]:
        """What the training depends on: JSON values."""
        how = {"steps": self.steps, "learning_rate": self.learning_rate, "batch_size": self.batch_size}
        return {**how, "train": task.data.train.digest, "augment": identity_of(task.augment)}


@dataclass(frozen=True, slots=True)
class FineTunedNetworks:
    """Plan → its network after the short training."""

    score: FineTuned
    candidates: Candidates

    def __call__(self, kept: Kept) -> nn.Module:
        known, task = self.candidates, self.candidates.task
        network = known.pruned(known.structure.plan(np.array(kept)))
        with torch.random.fork_rng(devices=[task.device] if task.device.type == "cuda" else []):
            torch.manual_seed(0)  # Dropout draws from torch's own generator
            fit(
                network,
                task.data.train,
                loss=lambda outputs, _, targets: task.loss(outputs, targets),
                steps=self.score.steps,
                learning_rate=self.score.learning_rate,
                batch_size=self.score.batch_size,
                generator=torch.Generator().manual_seed(0),
                augment=task.augment,
                forward=task.forward,
                bf16=supports_bf16(task.device),
            )
        return network
