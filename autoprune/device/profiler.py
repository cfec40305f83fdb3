"""Measures the latency tables of a task on this machine; what is measured already is not measured again.

Everything is on the disk as soon as it is measured, so that whoever is interrupted goes on from there. What was
measured while the machine was slower than at its best, as a reference beside it tells, is measured again.

Freed memory is left to the C library. Where it is kept, as searches keep it, many layers at once break it up until
allocating takes longer than the layer does.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autoprune.device.fused_layer import FusedLayer
from autoprune.device.grid import knots
from autoprune.device.latency_tables import Point
from autoprune.device.measured_device import MeasuredDevice, key_of, measured_plans
from autoprune.device.runtime import Run, threads_of_torch
from autoprune.device.timing import Steady, Timings
from autoprune.device.widths import Widths
from autoprune.structure.edit import shrink
from autoprune.structure.groups import IntArray, Structure
from autoprune.task.task import Task

REFERENCE = (FusedLayer("conv", (16, 16), (3, 3), (1, 1), (1, 1), (1, 1), bias=True), 32, 32)  # of layers
ROUNDINGS = (1, 4, 8, 16)  # of random plans, by turns, so that all kinds of widths are among them
TIMED = ("minimum", "median", "reference")
Progress = Callable[[int, int, str], None]  # done, of, what


class FusedLayerProfiler:
    """Measures the points of layers that the device's store lacks."""

    def __init__(self, device: MeasuredDevice, widths: Widths, *, on_progress: Progress) -> None:
        self._device, self._widths, self._on_progress = device, widths, on_progress
        self._store, self._runtime = device.store, device.runs()
        self._store.begin()

    def run(self) -> None:
        """Raises UnstableTimingError on a machine that stays busy."""
        layer, inputs, outputs = REFERENCE
        ready: dict[FusedLayer, Callable[[int, int], Run]] = {}
        care = self._device.care
        with threads_of_torch(self._device.threads):
            reference = self._runtime.layer(layer)(inputs, outputs)
            steady = Steady(reference, clock=self._runtime.seconds, care=care, best=self._store.best)
            while todo := self.lacking():
                for start in range(0, len(todo), care.chunk):
                    chunk = todo[start : start + care.chunk]
                    ready |= {layer: self._runtime.layer(layer) for layer in {p for p, _ in chunk} - ready.keys()}
                    self._keep(chunk, steady([ready[layer](*point) for layer, point in chunk]))
                    self._store.write_best(steady.best)
                    self._on_progress(start + len(chunk), len(todo), str(chunk[-1][0]))

    def lacking(self) -> list[tuple[FusedLayer, Point]]:
        """What is not measured, or not well, in a random order, in which a disturbance is no step of a staircase."""
        found: list[tuple[FusedLayer, Point]] = []
        rng = np.random.default_rng(0)
        for layer, points in zip(self._widths.layers, wanted(self._widths), strict=True):
            known, timings = self._store.points(layer)
            well = _well(timings, best=self._store.best, drift=self._device.care.drift)
            lacking = sorted(points - {point for point, settled in zip(known, well, strict=True) if settled})
            found += [(layer, lacking[place]) for place in rng.permutation(len(lacking))]
        return found

    def _keep(self, chunk: Sequence[tuple[FusedLayer, Point]], timings: Timings) -> None:
        for layer in dict.fromkeys(layer for layer, _ in chunk):
            rows = [row for row, (its, _) in enumerate(chunk) if its == layer]
            self._store.add(layer, [chunk[row][1] for row in rows], timings[rows])


class NetworkProfiler:
    """Measures whole networks of a task: plans that its tables are corrected by, and others that they are tested on.

    The reference is the dense network: what takes longer is undisturbed more rarely.
    """

    def __init__(
        self, device: MeasuredDevice, task: Task, structure: Structure, widths: Widths, *, on_progress: Progress
    ) -> None:
        self._device, self._task, self._structure, self._widths = device, task, structure, widths
        self._on_progress, self._store, self._runtime = on_progress, device.store, device.runs()
        self._store.begin()
        with threads_of_torch(device.threads):
            reference = self._runtime.network(task.model, task.example_input, task.forward)
        before = measured_plans(self._store, widths)[1].reference
        best = float(before.min()) if len(before) else None
        self._steady = Steady(reference, clock=self._runtime.seconds, care=device.care, best=best)

    def calibrate(self, plans: int) -> None:
        """Measures so many different plans, and writes them down. Raises UnstableTimingError on a busy machine."""
        drawn = random_plans(self._structure, 20 * plans, seed=0)  # a small network's are often the same
        todo = list(dict.fromkeys(map(tuple, drawn.tolist())))[:plans]
        while still := [kept for kept in todo if kept not in self._settled()]:
            for start in range(0, len(still), self._at_once):
                chunk = still[start : start + self._at_once]
                self._keep(chunk, self._timed(chunk))
                self._on_progress(start + len(chunk), len(still), "whole networks")

    def timings(self, kept: IntArray) -> Timings:
        """What plans [plans, groups] take, which is not written down."""
        plans = [tuple(units) for units in kept.tolist()]
        starts = range(0, len(plans), self._at_once)
        found = [self._timed(plans[start : start + self._at_once]) for start in starts]
        return Timings(*(np.concatenate([getattr(t, name) for t in found]) for name in TIMED))

    def _timed(self, plans: Sequence[tuple[int, ...]]) -> Timings:
        task, structure = self._task, self._structure
        ranking = {group.name: torch.arange(group.units) for group in structure.groups}
        networks = [shrink(task.model, structure, structure.plan(np.array(kept)), ranking) for kept in plans]
        with threads_of_torch(self._device.threads):
            return self._steady([self._runtime.network(n, task.example_input, task.forward) for n in networks])

    def _settled(self) -> set[tuple[int, ...]]:
        kept, timings = measured_plans(self._store, self._widths)
        well = _well(timings, best=self._steady.best, drift=self._device.care.drift)
        return {tuple(units) for units, settled in zip(kept.tolist(), well, strict=True) if settled}

    def _keep(self, plans: Sequence[tuple[int, ...]], timings: Timings) -> None:
        """Writes them down; they replace what was known of them."""
        before, known = measured_plans(self._store, self._widths)
        rows = [row for row, units in enumerate(before.tolist()) if tuple(units) not in set(plans)]
        record: dict[str, Any] = {"task": self._task.name, "groups": self._structure.names}
        record["kept"] = [*before[rows].tolist(), *plans]
        record |= {name: [*getattr(known[rows], name).tolist(), *getattr(timings, name).tolist()] for name in TIMED}
        self._store.write_network(key_of(self._widths), record)

    @property
    def _at_once(self) -> int:
        return max(1, self._device.care.chunk // 8)  # whole networks take more memory than layers


def random_plans(structure: Structure, plans: int, *, seed: int) -> IntArray:
    """[plans, groups]: from all but empty to dense, by turns of any widths and of multiples of 4, 8 and 16.

    The levels that a group may keep do not matter here: latency depends on widths alone.
    """
    rng = np.random.default_rng(seed)
    units = structure.units
    found = []
    for number in range(plans):
        density = np.clip(rng.normal(rng.uniform(0.15, 1), 0.2, len(units)), 0.05, 1)
        rounding = ROUNDINGS[number % len(ROUNDINGS)]
        kept = np.round(density * units / rounding).astype(np.int64) * rounding
        found.append(np.clip(kept, np.minimum(rounding, units), units))
    return np.array(found, np.int64)


def wanted(widths: Widths) -> list[set[Point]]:
    """[layers]: the points that are measured of each."""
    found = []
    for layer, (ins, outs) in zip(widths.layers, widths.ranges, strict=True):
        inputs = knots(*ins).tolist()
        found.append(
            {(i, i) for i in inputs} if layer.square else {(i, o) for i in inputs for o in knots(*outs).tolist()}
        )
    return found


def _well(timings: Timings, *, best: float | None, drift: float) -> NDArray[np.bool_]:
    """Which were measured while the reference was about as fast as it ever was."""
    return np.asarray(timings.reference <= (np.inf if best is None else best) * (1 + drift))
