"""Devices that are really measured, with as little care as there can be."""

from typing import Any

from autoprune.device.measured_device import MeasuredDevice
from autoprune.device.profiler import FusedLayerProfiler, NetworkProfiler
from autoprune.device.widths import widths_of
from autoprune.task.task import Task
from tests.device.simulated import CARELESS
from tests.models import PRUNABLE


def this_cpu(**changes: Any) -> MeasuredDevice:
    settings = {
        "runtime": "torch",
        "device_type": "cpu",
        "batch": 1,
        "precision": "fp32",
        "threads": 1,
        "care": CARELESS,
    }
    return MeasuredDevice(**settings | changes)


def profiled(device: MeasuredDevice, task: Task, *, plans: int = 8) -> list[str]:
    """Measures a task; says what was reported on the way."""
    structure = PRUNABLE[task.name].structure()
    widths = widths_of(task.model, structure, task.example_input)
    messages: list[str] = []

    def tell(done: int, of: int, what: str) -> None:
        messages.append(f"{done}/{of} {what}")

    FusedLayerProfiler(device, widths, on_progress=tell).run()
    NetworkProfiler(device, task, structure, widths, on_progress=tell).calibrate(plans)
    return messages
