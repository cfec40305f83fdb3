"""Peak activation memory: the most bytes of activations that are held at the same time, for one sample."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

from autoprune.cost.model import FloatArray
from autoprune.cost.probing import MISSING, Copies, probe
from autoprune.cost.recording import Forward, Recording
from autoprune.structure.groups import IntArray, Structure
from autoprune.task.samples import Samples


@dataclass(frozen=True, slots=True, eq=False)
class PeakMemory:
    """The largest of some sums, one for each operator: (per_unit · kept + constant) · element_bytes."""

    per_unit: IntArray
    """[operators, groups]: elements that are held while the operator runs, for each kept unit."""
    constant: IntArray
    """[operators]"""
    element_bytes: int = 4
    """Bytes of one element of an activation."""
    name: str = "peak_memory"
    """What budgets and reports call the cost."""
    unit: str = "bytes"
    """What the cost is counted in."""
    never_falls: bool = True
    """More units never cost less."""
    smooth: bool = True
    """No unit costs a multiple of its neighbours."""

    def __call__(self, kept: IntArray) -> FloatArray:
        held = np.asarray(kept, np.int64) @ self.per_unit.T + self.constant
        return np.asarray(held.max(axis=-1) * self.element_bytes, np.float64)

    def along(self, kept: IntArray, group: int, levels: IntArray) -> FloatArray:
        kept, levels = np.asarray(kept, np.int64), np.asarray(levels, np.int64)
        own = self.per_unit[:, group]
        rest = kept @ self.per_unit.T + self.constant - kept[..., group, None] * own  # [..., operators]
        held = rest[..., None, :] + levels[:, None] * own
        return np.asarray(held.max(axis=-1) * self.element_bytes, np.float64)


def peak_memory(
    model: nn.Module, structure: Structure, example_input: Samples, *, forward: Forward, element_bytes: int = 4
) -> PeakMemory:
    """The peak of a network, from forward passes of it and of narrower copies.

    Args:
        model: The dense network.
        structure: Its groups.
        example_input: A batch that it runs on; its first sample is taken.
        forward: (network, inputs) → outputs.
        element_bytes: Of an activation's element.

    Raises:
        ValueError: A buffer of a smaller network is not what is predicted, as where a tensor's size is a product of two
            groups' units.
    """
    copies = Copies(model, structure, example_input, forward=forward)
    dense = buffers_of(copies(structure.units).recording)
    spans = [(buffer.first, buffer.last) for buffer in dense]

    def elements(kept: IntArray) -> IntArray:
        buffers = buffers_of(copies(kept).recording)
        if [(buffer.first, buffer.last) for buffer in buffers] != spans:
            return np.full(len(dense), MISSING)
        return np.array([buffer.elements for buffer in buffers], np.int64)

    sizes = probe(structure, elements)
    if any(size is None or len(size.tables) > 1 for size in sizes):
        raise ValueError(
            "peak_memory is for networks whose activations each grow with the units of groups, one for one, and that "
            "run the same operators at any width; here some do not. Bound another cost"
        )
    table = np.stack([size.affine(len(structure.groups)) for size in sizes if size is not None])
    held = _held(dense) @ table
    return PeakMemory(*_largest(held[:, :-1], held[:, -1]), element_bytes=element_bytes)


@dataclass(slots=True)
class Buffer:
    """Memory that a tensor takes, or several of one size one after the other.

    The network's inputs are written by operator 0, and what is held to the end has the number of operators as `last`.
    """

    elements: int
    """How many numbers it holds."""
    first: int
    """The operator that writes it."""
    last: int
    """The last operator that needs it."""


def buffers_of(recording: Recording) -> list[Buffer]:
    """The memory that the activations of a forward pass take, in the order in which they are first written.

    A tensor is held from the operator that writes it to the last one that reads it or a view of it; the outputs to the
    end. An element-wise operator (an activation, an addition, BatchNorm) writes over an input of its size that is not
    read afterwards. Weights, what is made of weights alone, whole numbers, and what nobody reads take none.
    """
    steps = recording.steps
    last = {storage: index for index, step in enumerate(steps, 1) for storage in step.read}
    last |= dict.fromkeys(recording.outputs, len(steps) + 1)
    buffers = {storage: Buffer(size, 0, last[storage]) for storage, size in recording.inputs.items() if storage in last}
    for index, step in enumerate(steps, 1):
        for storage, elements in step.written.items():
            if storage not in last:
                continue
            over = _overwritten(buffers, {s for s in step.read if last[s] == index}, index, elements)
            if step.element_wise and over is not None:
                buffers[storage] = over
                over.last = last[storage]
            else:
                buffers[storage] = Buffer(elements, index, last[storage])
    return list({id(buffer): buffer for buffer in buffers.values()}.values())


def _overwritten(buffers: Mapping[int, Buffer], ending: set[int], index: int, elements: int) -> Buffer | None:
    """The oldest buffer of so many elements that nobody needs after the operator."""
    free = [buffers[s] for s in ending if s in buffers and buffers[s].last == index]
    return min((b for b in free if b.elements == elements), key=lambda buffer: buffer.first, default=None)


def _held(buffers: list[Buffer]) -> IntArray:
    """[operators, buffers]: 1 where the buffer is held while the operator runs."""
    operators = np.arange(max(buffer.last for buffer in buffers) + 1)[:, None]
    first, last = (np.array([getattr(b, end) for b in buffers]) for end in ("first", "last"))
    return ((first <= operators) & (operators <= last)).astype(np.int64)


def _largest(per_unit: IntArray, constant: IntArray) -> tuple[IntArray, IntArray]:
    """The operators that may be the peak of some plan: the others hold no more than one of these, whatever is kept."""
    rows = np.unique(np.column_stack([per_unit, constant]), axis=0)[::-1]
    kept: list[IntArray] = []
    for row in rows[np.argsort(-rows.sum(axis=1), kind="stable")]:
        if not any((row <= other).all() for other in kept):
            kept.append(row)
    table = np.stack(kept)
    return table[:, :-1], table[:, -1]
