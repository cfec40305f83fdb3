"""The networks that plans stand for: shrunk, repaired and judged."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from autoprune.evaluation.evaluator import SlicedEvaluator
from autoprune.evaluation.judge import Judge
from autoprune.evaluation.ordered import OrderedNetwork
from autoprune.identity import identity_of
from autoprune.plan import PruningPlan
from autoprune.repair.least_squares import Reconstruction
from autoprune.repair.repair import Repair
from autoprune.repair.replace_me import Replacements
from autoprune.repair.weight_levels import WeightLevels
from autoprune.structure.edit import Ranking, shrink
from autoprune.structure.groups import Structure
from autoprune.task.task import Role, Task

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Everything that decides what a plan's network computes and on what it is judged."""

    task: Task
    """The trained network, its data and its metric."""
    structure: Structure
    """The network's groups and layers."""
    ranking: Ranking
    """Group → its units, most important first."""
    repair: Repair
    """What is done to a pruned network without a gradient step."""
    reconstruction: Reconstruction
    """The weights that least squares give to readers, for every width."""
    levels: WeightLevels | None
    """The weights of matrices that lose single ones, where SparseGPT solved them; None where it did not."""
    proxy: Role
    """The samples that plans are judged on."""
    replacements: Replacements | None = None
    """What makes up for removed sublayers; None where nothing does."""

    @property
    def own_precision(self) -> str:
        """That of the weights: "fp32" or "bf16"."""
        return "bf16" if self.task.dtype == "bfloat16" else "fp32"

    def evaluator(self, *, precision: str, batch_size: int, samples: int | None = None) -> SlicedEvaluator:
        """Judges plans on the first `samples` of the proxy, None: on all.

        Args:
            precision: "fp32" or "bf16".
            batch_size: Samples in one forward pass, at least 1.
            samples: How many samples are judged; None for all.
        """
        dtype = DTYPES[precision]
        ordered = OrderedNetwork(
            self.task.model,
            self.structure,
            self.ranking,
            dtype=dtype,
            batch_statistics=self.repair.batch_norm,
            reconstruction=None if self.repair.least_squares is None else self.reconstruction,
            levels=self.levels,
            replacements=self.replacements,
            example_input=self.task.example_input,
            forward=self.task.forward,
        )
        judge = Judge(self.task, self.proxy[:samples], batch_size=batch_size, dtype=dtype)
        return SlicedEvaluator(ordered, judge, dense=self.structure.dense.kept)

    def pruned(self, plan: PruningPlan) -> nn.Module:
        """The smaller network, repaired from the calibration role; no gradient step was made."""
        network = shrink(self.task.model, self.structure, plan, self.ranking)
        self.repair.apply(
            network,
            plan,
            structure=self.structure,
            ranking=self.ranking,
            reconstruction=self.reconstruction,
            levels=self.levels,
            replacements=self.replacements,
            calibration=self.task.data.calibration,
            forward=self.task.forward,
        )
        return network

    def identity(self) -> dict[str, Any]:
        """What judged numbers depend on, apart from the plan and the forward pass's settings: JSON values."""
        restored = {}
        if self.repair.least_squares is not None:  # whose calibration rows may have been drawn at random
            floor = tuple(group.levels[0] for group in self.structure.groups)
            restored = {name: self.reconstruction.weight(name, floor) for name in self.reconstruction.layers}
        return {
            "task": self.task.name,
            "weights": identity_of(self.task.model),
            "groups": identity_of(self.structure),
            "ranking": identity_of(dict(self.ranking)),
            "repair": repr(self.repair),
            "restored": identity_of(restored),
            "calibration": self.task.data.calibration.digest,
            "proxy": self.proxy.digest,
            "metric": identity_of(self.task.metric, called="the task's metric"),
            "loss": identity_of(self.task.loss, called="the task's loss"),
            "forward": identity_of(self.task.forward, called="the task's forward"),
            "outputs": repr(self.task.outputs),
            "block": self.task.block,
        }
