"""This machine as a device: latency tables that were measured on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from torch import nn

from autoprune.cost.model import CostModel, FloatArray
from autoprune.device.correction import fitted
from autoprune.device.fingerprint import fingerprint
from autoprune.device.grid import knots, table
from autoprune.device.latency_tables import LatencyTables, MissingTableError, network_entry
from autoprune.device.runtime import DEVICE_TYPES, PRECISIONS, RUNTIMES, Runtime, runtime_of, threads_of_torch
from autoprune.device.table_latency import TableLatency
from autoprune.device.timing import TimingPolicy, Timings, measured
from autoprune.device.widths import Widths, widths_of
from autoprune.ranges import Count, OneOf, Threads, check_fields
from autoprune.structure.groups import IntArray, Structure
from autoprune.task.task import Task


@dataclass(frozen=True, slots=True)
class MeasuredDevice:
    """This machine with one runtime: latencies at one batch, precision and number of threads.

    Raises:
        ValueError: It cannot be measured here.
    """

    runtime: Annotated[str, OneOf(RUNTIMES)]
    """What runs networks: "onnxruntime", "openvino", "torch" or "torch_compiled"."""
    device_type: Annotated[str, OneOf(DEVICE_TYPES)]
    """"cpu" or "cuda"."""
    batch: Count
    """Samples at once."""
    precision: Annotated[str, OneOf(PRECISIONS)]
    """"fp32" or "bf16"."""
    threads: Threads
    """That the runtime computes with, at least 1."""
    care: TimingPolicy
    """How carefully is measured."""
    tables: Path | str | None = None
    """The folder of latency tables; None: this device's in autoprune's cache."""

    def __post_init__(self) -> None:
        check_fields(self, "device")
        self.runs()

    @property
    def name(self) -> str:
        return f"this {self.device_type.upper()}, {self.runtime}, batch {self.batch}, {self.precision}"

    def runs(self) -> Runtime:
        """What makes layers and networks ready to run here."""
        return runtime_of(self.runtime, device_type=self.device_type, batch=self.batch, precision=self.precision)

    @property
    def fingerprint(self) -> dict[str, Any]:
        return fingerprint(
            runtime=self.runtime,
            device_type=self.device_type,
            batch=self.batch,
            precision=self.precision,
            threads=self.threads,
        )

    @property
    def store(self) -> LatencyTables:
        """Raises ValueError where `tables` names the folder of another device."""
        return LatencyTables.of(self.fingerprint, tables=None if self.tables is None else Path(self.tables))

    def costs(self, task: Task, structure: Structure) -> dict[str, CostModel]:
        """The task's latency in ms.

        Args:
            task: The trained network, its data and its metric.
            structure: The network's groups and layers.

        Raises:
            ValueError: There is no table; the sentence names the command that measures it.
        """
        return {
            "latency": self.latency(task, widths_of(task.model, structure, task.example_input, forward=task.forward))
        }

    def latency(self, task: Task, widths: Widths) -> TableLatency:
        """Layers' tables, corrected by the plans of the whole network that were measured.

        Args:
            task: The trained network, its data and its metric.
            widths: The widths of every layer, by what groups keep.
        """
        try:
            tables = layers_ms(self.store, widths)
            plans, seconds = network_seconds(self.store, widths)
            return fitted(widths, tables, plans, 1e3 * seconds, blocked=self.runtime == "onnxruntime").applied(
                widths, tables
            )
        except MissingTableError as error:
            raise MissingTableError(
                f"there is no latency table of {task.name!r} for this device: {error}. Make it, in a few minutes on a "
                f"machine that does nothing else: {self._command(task)}"
            ) from None

    def _command(self, task: Task) -> str:
        which = "this_gpu" if self.device_type == "cuda" else "this_cpu"
        settings = {name: getattr(self, name) for name in ("runtime", "batch", "precision", "threads")}
        return " ".join(
            [f"autoprune profile task={task.name} device={which}", *(f"device.{k}={v}" for k, v in settings.items())]
        )

    def latencies(self, task: Task, networks: Mapping[str, nn.Module]) -> Timings:
        """Seconds of whole networks here.

        Args:
            task: The trained network, its data and its metric.
            networks: What is run, on the task's example.
        """
        runtime = self.runs()
        with threads_of_torch(self.threads):
            runs = [runtime.network(network, task.example_input, task.forward) for network in networks.values()]
            least, median, _ = measured(runs, clock=runtime.seconds, care=self.care)
        return Timings(least, median, np.full(len(runs), np.nan))


def layers_ms(store: LatencyTables, widths: Widths) -> list[FloatArray]:
    """[layers]: milliseconds at [inputs, outputs], [inputs, 1] of layers of one width.

    Args:
        store: Where measurements are kept.
        widths: The widths of every layer, by what groups keep.

    Raises:
        MissingTableError: Something was not measured.
    """
    tables = []
    for layer, (ins, outs) in zip(widths.layers, widths.ranges, strict=True):
        inputs, outputs = knots(*ins), np.array([0]) if layer.square else knots(*outs)
        tables.append(1e3 * table(inputs, outputs, store.seconds(layer, inputs.tolist(), outputs.tolist())))
    return tables


def network_seconds(store: LatencyTables, widths: Widths) -> tuple[IntArray, FloatArray]:
    """Plans of the whole network [plans, groups], and the least seconds that each took.

    Args:
        store: Where measurements are kept.
        widths: The widths of every layer, by what groups keep.

    Raises:
        MissingTableError: Something was not measured.
    """
    plans, timings = store.points(network_entry(widths))
    if not plans:
        raise MissingTableError("the whole network is not measured on this device")
    return np.array(plans, np.int64), timings.minimum
