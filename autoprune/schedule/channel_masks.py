"""Masks over whole channels and neurons: coupled layers lose them together, and at the end they are cut away."""

from collections.abc import Callable, Mapping
from itertools import accumulate

import torch
from torch import Tensor, nn

from autoprune.importance.unit_weights import unit_weights
from autoprune.plan import PruningPlan
from autoprune.schedule.decision import Decision
from autoprune.schedule.weight_masks import MaskedLayer, MaskedWeights, Masks, Scores, masked_layers
from autoprune.structure.edit import Ranking, kept_entries, shrink
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Group
from autoprune.structure.layer_types import tensor_axes
from autoprune.task.task import Task


class ChannelMasking:
    """Which units stay: as many as a density of all weights has room for, the largest relative to their group.

    A unit's score is the mean square of the weights that write it, over the mean of its group; the density is met to
    within one unit from below.
    """

    def __init__(self, task: Task, model: nn.Module, *, keep: frozenset[str]) -> None:
        """Finds the network's groups. Raises ValueError where there are none."""
        whole = task.keep | keep
        self.structure = find_structure(
            model, task.example_input, keep=whole, forward=task.forward, example_inputs=task.example_inputs
        )
        self.layers: tuple[MaskedLayer, ...] = masked_layers(task, model, keep=keep, granularity="channel")
        self.model, self.total = model, sum(layer.weights for layer in self.layers)
        self.names = {id(parameter): name for name, parameter in model.named_parameters()}
        floor = {group.name: group.levels[0] for group in self.structure.groups}
        ranking = self._ranking(dict(model.named_parameters()))
        self.least = self.kept(self._masks(floor, ranking))
        units = {group.name: group.units for group in self.structure.groups}
        self.largest_unit = self.total - min(
            self.kept(self._masks({**units, name: n - 1}, ranking)) for name, n in units.items()
        )

    def count(self, density: float) -> int:
        """Returns how many weights may stay at a density of all weights."""
        return min(self.total, max(self.least, round(density * self.total)))

    def dense(self) -> Masks:
        """Returns masks that keep everything, of every parameter that a group touches."""
        touched: Masks = {}
        for group in self.structure.groups:
            for name, tensor in self._tensors(group):
                touched[name] = torch.ones(tensor.shape, dtype=torch.bool)
        return touched

    def kept(self, masks: Masks) -> int:
        """Returns how many weights stay."""
        return sum(
            int(masks[layer.parameter].sum()) if layer.parameter in masks else layer.weights for layer in self.layers
        )

    def prune(
        self, current: MaskedWeights, decision: Decision, *, least: int, gradients: Callable[[], Scores]
    ) -> Masks:
        """Returns the masks that a decision leads to. Raises ValueError for what units cannot do.

        Args:
            current: The weights now, with their masks.
            decision: What is to go, and what may grow.
            least: Weights that stay in all, at least.
            gradients: Returns a gradient for every weight, where a criterion asks for them.
        """
        if decision.regrow or isinstance(decision.density, Mapping) or decision.allocation == "erk":
            raise ValueError(
                "granularity=channel removes units by one density, shared globally or uniformly; schedules that regrow "
                "weights (SET, RigL), allocate by Erdős–Rényi's rule or decide on each layer need granularity=weight"
            )
        limit, kept = max(self.count(decision.density_of_all), least), self.kept(current.masks)
        if limit > kept + self.largest_unit:
            raise ValueError(
                f"the schedule asks for a density of {decision.density_of_all:.4g} after {kept / self.total:.4g}, but "
                "channels that are gone do not come back: what reads them is 0 as well, so no gradient reaches them; "
                "schedules with dense phases (AC/DC) need granularity=weight"
            )
        if limit >= kept:
            return current.masks
        return self._filled(current, limit, uniform=decision.allocation == "uniform", chance=decision.criterion)

    def final(self, current: MaskedWeights, *, count: int) -> Masks:
        """Returns masks that keep at most so many weights, and no unit less than fits.

        Args:
            current: The weights now, with their masks.
            count: Weights that may stay in all.
        """
        if self.kept(current.masks) <= count:
            return current.masks
        return self._filled(current, count, uniform=False, chance="magnitude")

    def finish(self, model: nn.Module, masks: Masks) -> nn.Module:
        """Returns a smaller copy of the network, without the units that are masked.

        Args:
            model: The trained network, which stays as it is.
            masks: Which weights stay.
        """
        plan, ranking = self.plan(masks)
        return shrink(model, self.structure, plan, ranking)

    def plan(self, masks: Masks) -> tuple[PruningPlan, Ranking]:
        """Returns how many units of each group stay, and an order in which those come first."""
        ranking, kept = {}, []
        for group in self.structure.groups:
            active = self._active(group, masks)
            ranking[group.name] = torch.argsort(active.int(), descending=True, stable=True)
            kept.append(int(active.sum()))
        return PruningPlan(self.structure.names, tuple(self.structure.units.tolist()), tuple(kept)), ranking

    def _active(self, group: Group, masks: Masks) -> Tensor:
        """Which units a tensor of the group's still has [units]."""
        for member in group.members:
            for axis in tensor_axes(self.model.get_submodule(member.layer), member.axis):
                name = self.names.get(id(axis.tensor))
                if name is not None:
                    kept = masks[name].movedim(axis.dim, 0).flatten(1).any(dim=1)
                    entries = kept.view(axis.runs, -1).any(dim=0)
                    return entries[torch.from_numpy(member.positions)].any(dim=1)
        return torch.ones(group.units, dtype=torch.bool)

    def _filled(self, current: MaskedWeights, limit: int, *, uniform: bool, chance: str) -> Masks:
        """The masks of the most units, in order of their scores, whose weights are within the limit."""
        ranking = self._ranking(current.values, chance=current.chance if chance == "random" else None)
        order: list[tuple[float, str]] = []
        for group in self.structure.groups:
            active = int(self._active(group, current.masks).sum())
            scores = self._scores[group.name][ranking[group.name]]
            # of units that could all go, the floor stays; a unit never goes before a worse one of its group
            for index in range(group.levels[0], active):
                order.append((-index / group.units if uniform else float(scores[index]), group.name))
        order.sort(key=lambda entry: -entry[0])
        floor = {group.name: group.levels[0] for group in self.structure.groups}
        plans = list(accumulate(order, lambda kept, unit: {**kept, unit[1]: kept[unit[1]] + 1}, initial=floor))
        low, high = 0, len(plans) - 1  # plans[low] fits
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.kept(self._masks(plans[middle], ranking)) <= limit
            low, high = (middle, high) if fits else (low, middle - 1)
        return self._masks(plans[low], ranking)

    def _ranking(self, values: Mapping[str, Tensor], *, chance: torch.Generator | None = None) -> Ranking:
        self._scores: dict[str, Tensor] = {}
        for group in self.structure.groups:
            squares = [weight.square().mean(dim=1).cpu() for weight in unit_weights(self.model, group, "out")]
            mean = torch.stack(squares).mean(dim=0) if squares else torch.ones(group.units)
            alive = mean > 0
            if chance is not None:
                mean = torch.rand(group.units, generator=chance) * alive
            self._scores[group.name] = mean / mean[alive].mean().clamp(min=1e-30)
        return {name: torch.argsort(scores, descending=True, stable=True) for name, scores in self._scores.items()}

    def _masks(self, kept: Mapping[str, int], ranking: Ranking) -> Masks:
        masks, layers = self.dense(), dict(self.model.named_modules())
        plan = PruningPlan(
            self.structure.names, tuple(self.structure.units.tolist()), tuple(kept[n] for n in self.structure.names)
        )
        for (layer, axis_name), entries in kept_entries(self.structure, plan, ranking).items():
            for axis in tensor_axes(layers[layer], axis_name):
                name = self.names.get(id(axis.tensor))
                if name is None:
                    continue
                stays = torch.zeros(axis.tensor.shape[axis.dim], dtype=torch.bool)
                stays[axis.rows(entries)] = True
                masks[name] &= stays.view([-1 if d == axis.dim else 1 for d in range(axis.tensor.ndim)])
        return masks

    def _tensors(self, group: Group) -> list[tuple[str, Tensor]]:
        axes = [
            axis
            for member in group.members
            if member.layer or member.axis.count("/")
            for axis in tensor_axes(self.model.get_submodule(member.layer), member.axis)
        ]
        return [(self.names[id(axis.tensor)], axis.tensor) for axis in axes if id(axis.tensor) in self.names]
