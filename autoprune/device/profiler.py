"""Measures the latency tables of a task on this machine; what is measured already is not measured again.

Everything is on the disk as soon as it is measured, so that whoever is interrupted goes on from there. What was
measured while the machine was slower than at its best, as a reference beside it tells, is measured again.

Freed memory is left to the C library. Where it is kept, as searches keep it, many layers at once break it up until
allocating takes longer than the layer does.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch

from autoprune.device.fused_layer import FusedLayer
from autoprune.device.grid import knots
from autoprune.device.latency_tables import TIMED, Entry, LatencyTables, Point, layer_entry, network_entry, points_of
from autoprune.device.measured_device import MeasuredDevice
from autoprune.device.runtime import Run, threads_of_torch
from autoprune.device.timing import Steady, Timings
from autoprune.device.widths import Widths
from autoprune.structure.edit import shrink
from autoprune.structure.groups import IntArray, Structure
from autoprune.task.task import Task

REFERENCE = (FusedLayer("conv", (16, 16), (3, 3), (1, 1), (1, 1), (1, 1), bias=True), 32, 32)  # of layers
ROUNDINGS = (1, 4, 8, 16)  # of random plans, by turns, so that all kinds of widths are among them
Progress = Callable[[int, int, str], None]  # done, of, what
T = TypeVar("T")


class FusedLayerProfiler:
    """Measures the points of layers that the device's tables lack.

    Args:
        device: Where is measured.
        widths: The network's layers.
        on_progress: (done, of, what) is told after every chunk.
    """

    def __init__(self, device: MeasuredDevice, widths: Widths, *, on_progress: Progress) -> None:
        self._device, self._widths, self._on_progress = device, widths, on_progress
        self._store, self._runtime = device.store, device.runs()
        self._store.begin()
        self._ready: dict[FusedLayer, Callable[[int, int], Run]] = {}

    def run(self) -> None:
        """Measures all of them. Raises UnstableTimingError on a machine that stays busy."""
        layer, inputs, outputs = REFERENCE
        care = self._device.care
        with threads_of_torch(self._device.threads):
            reference = self._runtime.layer(layer)(inputs, outputs)
            steady = Steady(reference, clock=self._runtime.seconds, care=care, best=self._store.best)

            def measure(chunk: Sequence[tuple[FusedLayer, Point]]) -> None:
                self._keep(chunk, steady([self._run_of(layer, point) for layer, point in chunk]))
                self._store.write_best(steady.best)

            _by_chunks(self.lacking, measure, care.chunk, self._on_progress, what=lambda item: str(item[0]))

    def lacking(self) -> list[tuple[FusedLayer, Point]]:
        """What is not measured, or not well, in a random order, in which a disturbance is no step of a staircase."""
        todo: list[tuple[FusedLayer, Point]] = []
        rng = np.random.default_rng(0)
        for layer, (ins, outs) in zip(self._widths.layers, self._widths.ranges, strict=True):
            points = set(points_of(layer, knots(*ins).tolist(), knots(*outs).tolist()))
            done = settled(self._store, layer_entry(layer), best=self._store.best, drift=self._device.care.drift)
            left = sorted(points - done)
            todo += [(layer, left[index]) for index in rng.permutation(len(left))]
        return todo

    def _run_of(self, layer: FusedLayer, point: Point) -> Run:
        if layer not in self._ready:
            self._ready[layer] = self._runtime.layer(layer)
        return self._ready[layer](*point)

    def _keep(self, chunk: Sequence[tuple[FusedLayer, Point]], timings: Timings) -> None:
        for layer in dict.fromkeys(layer for layer, _ in chunk):
            rows = [row for row, (own, _) in enumerate(chunk) if own == layer]
            self._store.add(layer_entry(layer), [chunk[row][1] for row in rows], timings[rows])


class NetworkProfiler:
    """Measures whole networks of a task: plans that its tables are corrected by, and others that they are tested on.

    The reference is the dense network: what takes longer is undisturbed more rarely.

    Args:
        device: Where is measured.
        task: Whose network it is.
        structure: Its groups.
        widths: Its layers.
        on_progress: (done, of, what) is told after every chunk.
    """

    def __init__(
        self, device: MeasuredDevice, task: Task, structure: Structure, widths: Widths, *, on_progress: Progress
    ) -> None:
        self._device, self._task, self._structure = device, task, structure
        self._entry, self._on_progress = network_entry(widths), on_progress
        self._store, self._runtime = device.store, device.runs()
        self._store.begin()
        with threads_of_torch(device.threads):
            reference = self._runtime.network(task.model, task.example_input, task.forward)
        before = self._store.points(self._entry)[1].reference
        best = float(before.min()) if len(before) else None
        self._steady = Steady(reference, clock=self._runtime.seconds, care=device.care, best=best)
        self._at_once = max(1, device.care.chunk // 8)  # whole networks take more memory than layers

    def calibrate(self, plans: int) -> None:
        """Measures so many different plans, and writes them down. Raises UnstableTimingError on a busy machine."""
        drawn = random_plans(self._structure, 20 * plans, seed=0)  # a small network's are often the same
        wanted = list(dict.fromkeys(map(tuple, drawn.tolist())))[:plans]

        def lacking() -> list[Point]:
            done = settled(self._store, self._entry, best=self._steady.best, drift=self._device.care.drift)
            return [kept for kept in wanted if kept not in done]

        def measure(chunk: Sequence[Point]) -> None:
            self._store.add(self._entry, chunk, self._timed(chunk))

        _by_chunks(lacking, measure, self._at_once, self._on_progress, what=lambda _: "whole networks")

    def timings(self, kept: IntArray) -> Timings:
        """What plans [plans, groups] take, which is not written down."""
        plans = [tuple(units) for units in kept.tolist()]
        starts = range(0, len(plans), self._at_once)
        parts = [self._timed(plans[start : start + self._at_once]) for start in starts]
        return Timings(*(np.concatenate([getattr(part, name) for part in parts]) for name in TIMED))

    def _timed(self, plans: Sequence[Point]) -> Timings:
        task, structure = self._task, self._structure
        ranking = {group.name: torch.arange(group.units) for group in structure.groups}
        networks = [shrink(task.model, structure, structure.plan(np.array(kept)), ranking) for kept in plans]
        with threads_of_torch(self._device.threads):
            return self._steady([self._runtime.network(n, task.example_input, task.forward) for n in networks])


def settled(store: LatencyTables, entry: Entry, *, best: float | None, drift: float) -> set[Point]:
    """The points that were measured while the reference was about as fast as it ever was.

    Args:
        store: The device's tables.
        entry: What the points are of.
        best: The least seconds that the reference ever took; None: it was never measured.
        drift: How much longer it may have taken, as a fraction.
    """
    points, timings = store.points(entry)
    well = timings.reference <= (np.inf if best is None else best) * (1 + drift)
    return {point for point, steady in zip(points, well.tolist(), strict=True) if steady}


def _by_chunks(
    lacking: Callable[[], list[T]],
    measure: Callable[[list[T]], None],
    size: int,
    on_progress: Progress,
    *,
    what: Callable[[T], str],
) -> None:
    """Measures until nothing is lacking."""
    while todo := lacking():
        for start in range(0, len(todo), size):
            chunk = todo[start : start + size]
            measure(chunk)
            on_progress(start + len(chunk), len(todo), what(chunk[-1]))


def random_plans(structure: Structure, plans: int, *, seed: int) -> IntArray:
    """[plans, groups]: from all but empty to dense, by turns of any widths and of multiples of 4, 8 and 16.

    The levels that a group may keep do not matter here: latency depends on widths alone.

    Args:
        structure: The network's groups and layers.
        plans: How many plans of the whole network are measured.
        seed: Of the random numbers, at least 0.
    """
    rng = np.random.default_rng(seed)
    units = structure.units
    plans_kept = []
    for number in range(plans):
        density = np.clip(rng.normal(rng.uniform(0.15, 1), 0.2, len(units)), 0.05, 1)
        rounding = ROUNDINGS[number % len(ROUNDINGS)]
        kept = np.round(density * units / rounding).astype(np.int64) * rounding
        plans_kept.append(np.clip(kept, np.minimum(rounding, units), units))
    return np.array(plans_kept, np.int64)
