"""What pruning over time came to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from autoprune.schedule.weight_masks import Masks

Record = dict[str, Any]  # of one interval: JSON values


@dataclass(frozen=True, slots=True)
class PrunedTraining:
    """What pruning over time came to."""

    network: nn.Module
    """In eval mode; removed weights are 0, removed channels are gone."""
    masks: Masks
    """Parameter → which of its entries stay, before channels were cut away."""
    history: tuple[Record, ...]
    """One record for each interval between decisions."""
    density: float
    """Share of all weights that stays."""
    weights: int
    """How many stay."""
    steps: int
    """Optimizer steps, rewound ones included."""
    spent: float
    """Of the training budget, in steps of the dense network."""
    macs: float
    """Training MACs over those of one step of the dense network."""
    removed_last: int
    """Weights that the schedule had left over, and that were removed after the last step."""
    uncounted: Mapping[str, int]
    """Parameter → how many weights it has that no density counts: embeddings, and layers of the network's own."""
