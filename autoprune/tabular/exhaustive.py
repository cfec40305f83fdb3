"""Judges all plans of a network, one after the other: what the last plan's network computed is recalled."""

import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.evaluation.ordered import OrderedNetwork
from autoprune.evaluation.outcome import Judged
from autoprune.structure.axes import AxisSlices, Kept
from autoprune.structure.groups import Group, Structure, holds
from autoprune.task.task import Role, Task, outputs_of


class ExhaustiveEvaluator:
    """Judges a plan with every level of its last group, on several roles: `answers` of one block of all samples each.

    The last group's units are outputs of their layers, and what fewer of them compute is a slice of what all do, so its
    levels cost the output layer only. Plans that come one after the other cost what follows the groups in which they
    differ. That asks for a network whose output layer alone reads its last group.

    batch_size: samples per forward pass, counted within each role. Raises ValueError where the network is another one:
    its last group is read elsewhere, its modules run twice or are passed over, or return no single tensor.
    """

    divisible = False

    def __init__(
        self, ordered: OrderedNetwork, task: Task, structure: Structure, roles: Sequence[Role], *, batch_size: int
    ) -> None:
        self._ordered, self._task, self._roles = ordered, task, roles
        self._last_levels = structure.groups[-1].levels
        self.answers = len(self._last_levels) * len(roles)
        self._batches = [_batches(role, batch_size) for role in roles]
        self._log_dense = [
            torch.cat([F.log_softmax(outputs_of(task.model, batch, task.forward), dim=-1) for batch in batches])
            for batches in self._batches
        ]
        network = ordered.at(structure.dense.kept)
        ended, outputs = _ended(network, self._batches[0][0], task)
        self._axis = _output_axis(structure, ended, outputs)
        modules = dict(network.named_modules())
        self._recalling = [
            _Recalling(modules[name], frozenset(i for i, group in enumerate(structure.groups) if _meet(group, name)))
            for name in ended
            if name and not holds(name, self._axis.layer)
        ]
        self._seen: dict[tuple[int, int], Kept] = {}  # what each batch was last computed with

    def judge(self, kept: Kept, start: int, stop: int) -> list[Judged]:
        """Answers start … stop - 1 of those for each level of the last group, and for each role of each of them.

        The plan's own number of units of the last group says nothing.

        Args:
            kept: Units that each group keeps [groups].
            start: The first batch.
            stop: The batch that comes after the last one.

        Raises:
            FloatingPointError: Outputs are not finite.
        """
        features = [self._read((*kept[:-1], self._last_levels[-1]), role) for role in range(len(self._roles))]
        places = [divmod(answer, len(self._roles)) for answer in range(start, stop)]
        return [self._judged((*kept[:-1], self._last_levels[level]), role, features[role]) for level, role in places]

    @torch.inference_mode()
    def _judged(self, kept: Kept, role: int, features: Tensor) -> Judged:
        layer = self._ordered.at(kept).get_submodule(self._axis.layer)
        outputs = _own_forward(layer)(features.index_select(1, self._axis.entries(kept))).float()
        if not torch.isfinite(outputs).all():
            raise FloatingPointError(f"{int((~torch.isfinite(outputs)).sum())} of its outputs are NaN or infinite")
        targets, log_dense = self._roles[role].targets, self._log_dense[role]
        divergence = F.kl_div(F.log_softmax(outputs, dim=-1), log_dense, log_target=True, reduction="none").sum(dim=-1)
        same = (outputs.argmax(dim=-1) == log_dense.argmax(dim=-1)).double()
        values = self._task.metric(outputs, targets), self._task.loss(outputs, targets), divergence.double().mean()
        column = [[float(value)] for value in (*values, same.mean())]
        return Judged(np.array(column, np.float32), np.array([len(targets)], np.int32), 0.0)

    @torch.inference_mode()
    def _read(self, kept: Kept, role: int) -> Tensor:
        """What the output layer reads of each of the role's samples."""
        network, rows = self._ordered.at(kept), []
        layer = network.get_submodule(self._axis.layer)
        layer.__dict__["forward"] = _handed_on
        try:
            for index, batch in enumerate(self._batches[role]):
                last = self._seen.pop((role, index), None)  # gone where an exception comes in between
                intact = last is not None
                for module in self._recalling:  # in the order in which they end
                    intact = intact and not any(last is None or kept[g] != last[g] for g in module.groups)
                    module.recalls, module.batch = intact, (role, index)
                rows.append(self._task.forward(network, batch))
                self._seen[role, index] = kept
        finally:
            layer.__dict__.pop("forward", None)
        return torch.cat(rows)


class _Recalling:
    """Stands for a module's forward: runs it and remembers, or recalls what it returned for this batch."""

    def __init__(self, module: nn.Module, groups: frozenset[int]) -> None:
        self.groups, self._module = groups, module
        self.recalls, self.batch = False, (0, 0)
        self._returned: dict[tuple[int, int], Any] = {}
        module.__dict__["forward"] = self

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if not self.recalls:
            self._returned[self.batch] = _own_forward(self._module)(*arguments, **named)
        return self._returned[self.batch]


def _handed_on(features: Tensor) -> Tensor:
    """What the output layer does while the others are asked for what it reads."""
    return features


@torch.inference_mode()
def _ended(network: nn.Module, inputs: Tensor, task: Task) -> tuple[dict[str, object], Tensor]:
    """What each module returns, in the order in which they end, and the network's outputs."""
    ended: dict[str, object] = {}

    def on_output(name: str, _: nn.Module, __: object, output: object) -> None:
        if name in ended or not isinstance(output, Tensor):
            raise ValueError(f"{name!r} runs more than once or returns no tensor; such plans are judged one by one")
        ended[name] = output

    with ExitStack() as hooks:
        for name, module in network.named_modules():
            hooks.enter_context(module.register_forward_hook(partial(on_output, name)))
        outputs = task.forward(network, inputs)
    return ended, outputs


def _output_axis(structure: Structure, ended: dict[str, object], outputs: Tensor) -> AxisSlices:
    """Where the only layer that reads the last group, the network's output layer, has its units."""
    group = structure.groups[-1]
    readers = [member.layer for member in group.members if member.axis == "in"]
    if structure.stages or len(readers) != 1 or ended.get(readers[0]) is not outputs:
        raise ValueError(
            f"the last group, {group.name!r}, is read by {readers}; all plans can be judged where the network's output "
            "layer alone reads it"
        )
    axis = AxisSlices(structure, readers[0], "in")
    if len(axis.members) != 1:
        raise ValueError(f"{axis.layer!r} reads other groups beside the last one, {group.name!r}")
    return axis


def _own_forward(module: nn.Module) -> Callable[..., Any]:
    """What the module computes, whatever stands in for its forward."""
    return functools.partial(type(module).forward, module)


def _meet(group: Group, module: str) -> bool:
    return any(holds(module, member.layer) for member in group.members)


def _batches(role: Role, size: int) -> list[Tensor]:
    last = torch.channels_last if role.inputs.ndim == 4 else torch.contiguous_format
    return [batch.contiguous(memory_format=last) for batch in role.inputs.split(size)]
