"""The seam of this room: what a criterion is, and how its scores become the one order that everything is sliced by."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from autoprune.importance.block_influence import block_influence, given_order
from autoprune.structure.edit import Ranking
from autoprune.structure.groups import Group, Structure
from autoprune.task.task import Forward, Loss, Role

# group → the score of each of its units [units], or of each weight of the matrix it compares [outputs, inputs];
# float32, higher = keep
Scores = Mapping[str, Tensor]

MOST_COMPARED = torch.iinfo(torch.int16).max
ROWS = 1024  # of a matrix that are sorted at once, which takes several times their memory


@dataclass(frozen=True, slots=True)
class CriterionInputs:
    """What a criterion may look at. It uses what it needs and leaves the network and the samples as they were."""

    model: nn.Module
    """The dense network, in eval mode."""
    structure: Structure
    """The network's groups and layers."""
    role: Role
    """The calibration samples."""
    loss: Loss
    """(outputs, targets) → a scalar: the task's."""
    forward: Forward
    """(network, inputs) → outputs: how the task calls its network."""
    generator: torch.Generator
    """The only source of chance."""


class Importance(Protocol):
    """A criterion: what every unit of every group is worth. Any function with this signature is one.

    Scores are compared within a group only, whatever their scale; of single weights, within each comparison. Groups of
    modules that can be passed over may be left out.
    """

    def __call__(self, given: CriterionInputs, /) -> Scores: ...


def criterion_name(importance: Importance) -> str:
    """What messages call a criterion: the name of its function."""
    function = getattr(importance, "func", importance)  # a partial's function
    return getattr(function, "__name__", type(function).__name__)


def scored(importance: Importance, given: CriterionInputs) -> dict[str, Tensor]:
    """Group → its scores by the criterion, or what is the same by all of them; in the structure's order.

    Which are block influence, for groups of modules that can be passed over, where the criterion leaves them out, and
    the order that units of patterns and codes are given.

    Args:
        importance: The criterion.
        given: The network, its groups and the calibration samples.
    """
    scores = dict(_called(importance, given))
    groups = given.structure.groups
    skipped = [group for group in groups if group.skips and group.name not in scores]
    scores |= block_influence(given.model, skipped, given.role, forward=given.forward)
    scores |= {group.name: given_order(group) for group in groups if group.in_given_order}
    return {name: scores[name] for name in given.structure.names if name in scores} | scores


def _called(importance: Importance, given: CriterionInputs) -> Scores:
    """What it returns; one that was written for version 0.1 is called as it was then."""
    if "structure" not in inspect.signature(importance).parameters:
        return importance(given)
    of_0_1: Callable[..., Scores] = importance
    return of_0_1(
        given.model, given.structure, given.role, loss=given.loss, forward=given.forward, generator=given.generator
    )


def rank(scores: Scores, structure: Structure, *, criterion: str) -> Ranking:
    """Each group's units [units], most important first; of units that score the same, the earlier one comes first.

    Of a group that compares single weights: the place of each weight [outputs, inputs] within its comparison, int16, 0
    for the most important one, so that k kept units are the weights whose place is below k.

    Args:
        scores: Group → the score of each of its units [units].
        structure: The network's groups and layers.
        criterion: The criterion's name, for messages.

    Raises:
        ValueError: Naming the criterion and the group, where scores are missing, misshapen, NaN or infinite.
    """
    if set(scores) != set(structure.names):
        missing, unknown = sorted(set(structure.names) - set(scores)), sorted(set(scores) - set(structure.names))
        raise ValueError(f"{criterion} must score every group and nothing else; missing: {missing}, unknown: {unknown}")
    sizes = {layer.name: (layer.outputs, layer.inputs * layer.kernel) for layer in structure.layers}
    ranking = {}
    for group in structure.groups:
        values = scores[group.name]
        if group.compared:
            matrix = group.compared[0]
            _check(values, group, sizes[matrix.layer], f"weight of {matrix.layer}", criterion)
            ranking[group.name] = _places(values, matrix.size)
        else:
            _check(values, group, (group.units,), "unit", criterion)
            ranking[group.name] = torch.argsort(values, descending=True, stable=True).cpu()
    return ranking


def _check(values: Tensor, group: Group, shape: tuple[int, ...], thing: str, criterion: str) -> None:
    count = " × ".join(map(str, shape))
    if values.shape != shape:
        things = f"{count} units" if thing == "unit" else f"{count} weights"
        raise ValueError(
            f"{criterion} must give group {group.name!r} one score for each of its {things}, "
            f"got shape {tuple(values.shape)}"
        )
    if group.units > MOST_COMPARED and group.compared:
        raise ValueError(
            f"group {group.name!r} compares {group.units} weights with each other, more than the {MOST_COMPARED} that "
            "a 16-bit place can tell apart; name the layer in task.keep"
        )
    if bool(torch.isfinite(values).all()):
        return
    broken = (~torch.isfinite(values)).nonzero().tolist()
    first = broken[0][0] if len(shape) == 1 else tuple(broken[0])
    raise ValueError(
        f"{criterion} scores {len(broken)} of the {count} {'units' if thing == 'unit' else 'weights'} of group "
        f"{group.name!r} NaN or infinite (the first is {thing} {first}); look for broken weights or samples, or try "
        "another criterion"
    )


def _places(values: Tensor, size: int) -> Tensor:
    """The place of each score [outputs, inputs] among each `size` consecutive ones of its row, int16, 0 = highest."""
    compared = values.reshape(-1, size)
    places = torch.empty(compared.shape, dtype=torch.int16)
    count = torch.arange(size, dtype=torch.int16)
    rows = max(1, ROWS * values.shape[1] // size)
    for scores, part in zip(compared.split(rows), places.split(rows), strict=True):
        order = torch.argsort(scores, dim=1, descending=True, stable=True).cpu()
        part.scatter_(1, order, count.expand(len(part), -1))
    return places.view(values.shape)
