"""Measures the latency tables of a task on this machine; what is measured already is not measured again."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from autoprune.device.grid import knots
from autoprune.device.measured import MeasuredDevice, key_of, measured_plans
from autoprune.device.piece import Piece
from autoprune.device.runtime import Run, threads_of_torch
from autoprune.device.store import Point
from autoprune.device.timing import Steady, Timings
from autoprune.device.widths import Widths
from autoprune.structure.edit import shrink
from autoprune.structure.groups import IntArray, Structure
from autoprune.task.task import Task

REFERENCE = (Piece("conv", (16, 16), (3, 3), (1, 1), (1, 1), (1, 1), bias=True), 32, 32)  # that drift is seen by
ROUNDINGS = (1, 4, 8, 16)  # of measured plans, by turns, so that all kinds of widths are among them
TIMED = ("minimum", "median", "reference")
Progress = Callable[[int, int, str], None]  # done, of, what


class Profiler:
    """Measures what the store of a device lacks, and what was measured while the machine was slower than at its best.

    Everything is on the disk as soon as it is measured, so that whoever is interrupted goes on from there.
    """

    def __init__(self, device: MeasuredDevice, *, on_progress: Progress) -> None:
        self._device, self._on_progress = device, on_progress
        self.store, self._runtime = device.store, device.runs()
        self.store.begin()
        piece, inputs, outputs = REFERENCE
        with threads_of_torch(device.threads):
            reference = self._runtime.piece(piece)(inputs, outputs)
        self._steady = Steady(reference, clock=self._runtime.seconds, care=device.care, best=self.store.best)

    def pieces(self, widths: Widths) -> None:
        """Measures every point of every piece. Raises UnstableTimingError on a machine that is busy."""
        ready: dict[Piece, Callable[[int, int], Run]] = {}
        while todo := self.lacking(widths):
            for start in range(0, len(todo), self._device.care.chunk):
                chunk = todo[start : start + self._device.care.chunk]
                with threads_of_torch(self._device.threads):
                    ready |= {piece: self._runtime.piece(piece) for piece in {p for p, _ in chunk} - ready.keys()}
                    timings = self._timed([ready[piece](*point) for piece, point in chunk])
                for piece in dict.fromkeys(p for p, _ in chunk):
                    rows = [row for row, (its, _) in enumerate(chunk) if its == piece]
                    self.store.add(piece, [chunk[row][1] for row in rows], timings[rows])
                self._on_progress(start + len(chunk), len(todo), str(chunk[-1][0]))

    def calibrate(self, task: Task, structure: Structure, widths: Widths, *, plans: int) -> None:
        """Measures so many random plans of the whole network, by which sums of pieces are corrected."""
        todo = [tuple(kept) for kept in random_plans(structure, plans, seed=0).tolist()]
        while still := [kept for kept in todo if kept not in self._settled_plans(widths)]:
            for start in range(0, len(still), self._at_once):
                chunk = still[start : start + self._at_once]
                timings = self.plans(task, structure, np.array(chunk, np.int64))
                self._keep_plans(task, structure, widths, chunk, timings)
                self._on_progress(start + len(chunk), len(still), "whole networks")

    def plans(self, task: Task, structure: Structure, kept: IntArray) -> Timings:
        """What the task's network takes after each of the plans [plans, groups], which is not written down."""
        ranking = {group.name: torch.arange(group.units) for group in structure.groups}
        found = []
        for start in range(0, len(kept), self._at_once):
            networks = [
                shrink(task.model, structure, structure.plan(units), ranking)
                for units in kept[start : start + self._at_once]
            ]
            with threads_of_torch(self._device.threads):
                runs = [self._runtime.network(network, task.example_input, task.forward) for network in networks]
                found.append(self._timed(runs))
        return Timings(*(np.concatenate([getattr(t, name) for t in found]) for name in TIMED))

    def _timed(self, runs: Sequence[Run]) -> Timings:
        timings = self._steady(runs)
        if self.store.best is None or self._steady.best < self.store.best:
            self.store.write_best(self._steady.best)
        return timings

    def lacking(self, widths: Widths) -> list[tuple[Piece, Point]]:
        """What is not measured, or not well, in a random order, in which a disturbance is no step of a staircase."""
        found: list[tuple[Piece, Point]] = []
        rng = np.random.default_rng(0)
        for piece, points in zip(widths.pieces, wanted(widths), strict=True):
            known, timings = self.store.points(piece)
            settled = {point for point, well in zip(known, self._well(timings), strict=True) if well}
            lacking = sorted(points - settled)
            found += [(piece, lacking[place]) for place in rng.permutation(len(lacking))]
        return found

    def _settled_plans(self, widths: Widths) -> set[tuple[int, ...]]:
        kept, timings = measured_plans(self.store, widths)
        return {tuple(units) for units, well in zip(kept.tolist(), self._well(timings), strict=True) if well}

    def _keep_plans(
        self, task: Task, structure: Structure, widths: Widths, chunk: Sequence[tuple[int, ...]], timings: Timings
    ) -> None:
        """Writes them down; they replace what was known of them."""
        before, known = measured_plans(self.store, widths)
        rows = [row for row, units in enumerate(before.tolist()) if tuple(units) not in set(chunk)]
        record = {"task": task.name, "groups": structure.names, "kept": [*before[rows].tolist(), *chunk]}
        record |= {name: [*getattr(known[rows], name).tolist(), *getattr(timings, name).tolist()] for name in TIMED}
        self.store.write_network(key_of(widths), record)

    def _well(self, timings: Timings) -> NDArray[np.bool_]:
        """Which were measured while the reference was about as fast as it ever was."""
        best = self.store.best or np.inf
        return np.asarray(timings.reference <= best * (1 + self._device.care.drift))

    @property
    def _at_once(self) -> int:
        return max(1, self._device.care.chunk // 8)  # whole networks take more memory than pieces


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
    """[pieces]: the points that are measured of each."""
    found = []
    for piece, (ins, outs) in zip(widths.pieces, widths.ranges, strict=True):
        inputs = knots(*ins).tolist()
        found.append(
            {(i, i) for i in inputs} if piece.square else {(i, o) for i in inputs for o in knots(*outs).tolist()}
        )
    return found
