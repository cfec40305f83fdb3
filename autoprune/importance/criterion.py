"""The seam of this room: what a criterion is, and how its scores become the one order that everything is sliced by."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from autoprune.structure.edit import Ranking
from autoprune.structure.groups import Structure
from autoprune.task.task import Loss, Role

Scores = Mapping[str, Tensor]  # group → the score of each of its units [units], float32, higher = keep


class Importance(Protocol):
    """A criterion: what every unit of every group is worth. Any function with this signature is one.

    role: the calibration samples; loss: the task's; generator: the only source of chance. A criterion uses those
    that it needs and leaves the network as it was. Scores are compared within a group only, whatever their scale.
    """

    def __call__(
        self, model: nn.Module, structure: Structure, role: Role, *, loss: Loss, generator: torch.Generator
    ) -> Scores: ...


def rank(scores: Scores, structure: Structure, *, criterion: str) -> Ranking:
    """Each group's units [units], most important first; of units that score the same, the earlier one comes first.

    Raises ValueError, naming the criterion and the group, where scores are missing, misshapen, NaN or infinite.
    """
    if set(scores) != set(structure.names):
        missing, unknown = sorted(set(structure.names) - set(scores)), sorted(set(scores) - set(structure.names))
        raise ValueError(f"{criterion} must score every group and nothing else; missing: {missing}, unknown: {unknown}")
    ranking = {}
    for group in structure.groups:
        values = scores[group.name]
        if values.shape != (group.units,):
            raise ValueError(
                f"{criterion} must give group {group.name!r} one score for each of its {group.units} units, "
                f"got shape {tuple(values.shape)}"
            )
        broken = (~torch.isfinite(values)).nonzero().flatten().tolist()
        if broken:
            raise ValueError(
                f"{criterion} scores {len(broken)} of the {group.units} units of group {group.name!r} NaN or infinite "
                f"(the first is unit {broken[0]}); look for broken weights or samples, or try another criterion"
            )
        ranking[group.name] = torch.argsort(values, descending=True, stable=True).cpu()
    return ranking
