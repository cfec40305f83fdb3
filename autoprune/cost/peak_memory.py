"""Peak activation memory: the most bytes of activations that are held at the same time, for one sample."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.cost.liveness import Buffer, Forward, buffers_of
from autoprune.cost.model import FloatArray
from autoprune.plan import PruningPlan
from autoprune.structure.edit import shrink
from autoprune.structure.groups import IntArray, Structure


@dataclass(frozen=True, slots=True, eq=False)
class PeakMemory:
    """The largest of some sums, one for each operation: per_unit · kept + constant, times the bytes of an element.

    per_unit [operations, groups], constant [operations]: elements that are held while the operation runs.
    """

    per_unit: IntArray
    constant: IntArray
    element_bytes: int = 4
    name: str = "peak_memory"
    unit: str = "bytes"
    never_falls: bool = True
    smooth: bool = True

    def __call__(self, kept: IntArray) -> FloatArray:
        held = np.asarray(kept, np.int64) @ self.per_unit.T + self.constant
        return np.asarray(held.max(axis=-1) * self.element_bytes, np.float64)

    def along(self, kept: IntArray, group: int, levels: IntArray) -> FloatArray:
        kept, levels = np.asarray(kept, np.int64), np.asarray(levels, np.int64)
        own = self.per_unit[:, group]
        rest = kept @ self.per_unit.T + self.constant - kept[..., group, None] * own  # [..., operations]
        held = rest[..., None, :] + levels[:, None] * own
        return np.asarray(held.max(axis=-1) * self.element_bytes, np.float64)


def peak_memory(
    model: nn.Module, structure: Structure, example_input: Tensor, *, forward: Forward, element_bytes: int = 4
) -> PeakMemory:
    """Of a network that was traced, from a forward pass of it and one for each group with fewer units.

    Activations are held as buffers_of says, each element in so many bytes. Raises ValueError where a smaller network's
    buffers are not what is predicted from these: where a tensor's size is a product of two groups' units.
    """
    sample = example_input[:1]
    ranking = {group.name: torch.arange(group.units) for group in structure.groups}

    def buffers(plan: PruningPlan) -> list[Buffer]:
        return buffers_of(shrink(model, structure, plan, ranking), sample, forward=forward)

    dense = buffers(structure.dense)
    sizes, per_unit = _elements(dense), np.zeros((len(dense), len(structure.groups)), np.int64)
    for index, group in enumerate(structure.groups):
        plan = structure.units
        plan[index] = group.levels[-2]
        fewer = _same(dense, buffers(structure.plan(plan)), group.name)
        per_unit[:, index] = (sizes - fewer) // (group.units - group.levels[-2])
    constant = sizes - per_unit @ structure.units
    middle = np.array([group.levels[len(group.levels) // 2] for group in structure.groups], np.int64)
    found = _same(dense, buffers(structure.plan(middle)), "all together")
    if (per_unit @ middle + constant != found).any():
        raise ValueError(
            "peak_memory is for networks whose activations each grow with the units of groups, one for one; here some "
            "grow with products of them. Bound another cost"
        )
    held = _held(dense)
    return PeakMemory(*_largest(held @ per_unit, held @ constant), element_bytes=element_bytes)


def _elements(buffers: list[Buffer]) -> IntArray:
    return np.array([buffer.elements for buffer in buffers], np.int64)


def _same(dense: list[Buffer], smaller: list[Buffer], name: str) -> IntArray:
    if [(b.first, b.last) for b in dense] != [(b.first, b.last) for b in smaller]:
        raise ValueError(
            f"peak_memory: with fewer units of {name} the network runs other operations than the dense one, so its "
            "memory cannot be predicted. Bound another cost"
        )
    return _elements(smaller)


def _held(buffers: list[Buffer]) -> IntArray:
    """[operations, buffers]: 1 where the buffer is held while the operation runs."""
    operations = np.arange(max(buffer.last for buffer in buffers) + 1)[:, None]
    first, last = (np.array([getattr(b, end) for b in buffers]) for end in ("first", "last"))
    return ((first <= operations) & (operations <= last)).astype(np.int64)


def _largest(per_unit: IntArray, constant: IntArray) -> tuple[IntArray, IntArray]:
    """The operations that may be the peak of some plan: the others hold no more than one of these, whatever is kept."""
    rows = np.unique(np.column_stack([per_unit, constant]), axis=0)[::-1]
    kept: list[IntArray] = []
    for row in rows[np.argsort(-rows.sum(axis=1), kind="stable")]:
        if not any((row <= other).all() for other in kept):
            kept.append(row)
    table = np.stack(kept)
    return table[:, :-1], table[:, -1]
