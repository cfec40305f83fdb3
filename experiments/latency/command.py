"""The command: profiles every task on every runtime, and compares predictions with plans that are measured anew."""

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoprune.cost.model import CostModel, FloatArray
from autoprune.cost.observed import NetworkCosts
from autoprune.device.agreement import agreement
from autoprune.device.analytical import AnalyticalDevice
from autoprune.device.measured_device import MeasuredDevice, network_seconds
from autoprune.device.profiler import FusedLayerProfiler, NetworkProfiler, random_plans
from autoprune.device.widths import Widths, widths_of
from autoprune.report.progress import StageProgress
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import IntArray
from autoprune.task.shipped import shipped_task
from autoprune.task.task import Task
from experiments.configuration import composed, instantiate_part
from experiments.latency.table import markdown
from experiments.origin import origin
from experiments.readme import write_between

HERE = Path(__file__).resolve().parent
TASKS = ("fashion_resnet20", "fashion_plain20", "fashion_mobilenet")
RUNTIMES = ("onnxruntime", "torch")
FITTED = 32  # plans of the whole network that the sum of layers is corrected by
HANDFUL = 16  # of them, that the analytical device is calibrated by
ANALYTICAL = "server_cpu"  # the shipped device that is most like the machine of the committed run
MANY = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="experiments/latency/run", description=__doc__)
    parser.add_argument("--plans", type=int, default=50)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--runtimes", nargs="+", default=RUNTIMES)
    parser.add_argument("--patience", type=float, default=600, help="seconds until a machine counts as too busy")
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for task in arguments.tasks:
        for runtime in arguments.runtimes:
            rows.append(row(task, this_cpu(runtime, patience_s=arguments.patience), plans=arguments.plans))
            print(json.dumps({key: value for key, value in rows[-1].items() if key != "plans"}), flush=True)
    record = {
        **origin("experiments/latency/run"),
        "fitted": FITTED,
        "handful": HANDFUL,
        "analytical": device(ANALYTICAL).name,
        "rows": rows,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "latency.json").write_text(json.dumps(record, indent=1) + "\n")
    write_between(arguments.out / "README.md", markdown(record), name="latency")


def row(name: str, here: MeasuredDevice, *, plans: int) -> dict[str, Any]:
    """One task on one runtime."""
    task = shipped_task(name)
    structure = find_structure(task.model, task.example_input, keep=task.keep)
    widths = widths_of(task.model, structure, task.example_input, forward=task.forward)
    start = time.perf_counter()
    with StageProgress() as progress:

        def tell(done: int, of: int, what: str) -> None:
            progress.update(done, of=of, phase=f"{name} {here.runtime}", note=what)

        layers = FusedLayerProfiler(here, widths, on_progress=tell)
        points = len(layers.lacking())
        layers.run()
        networks = NetworkProfiler(here, task, structure, widths, on_progress=tell)
        networks.calibrate(FITTED)
    seconds = time.perf_counter() - start
    kept = random_plans(structure, plans, seed=2)
    timings = networks.timings(kept)
    latency = here.latency(task, widths)
    predicted, least, median = latency(kept), 1e3 * timings.minimum, 1e3 * timings.median
    found = {
        "task": name,
        "runtime": here.runtime,
        "profile": {"pieces": len(widths.layers), "points": points, "seconds": round(seconds, 1)},
        "measured": asdict(agreement(predicted, least)),
        "median": asdict(agreement(predicted, median)),
        "predicting_ms": round(1e3 * predicting_s(latency, random_plans(structure, MANY, seed=3)), 2),
        **analytical(here, task, widths, structure, kept, least),
    }
    columns = {"kept": kept, "predicted_ms": predicted, "least_ms": least, "median_ms": median}
    return {**found, "plans": {key: np.round(value, 5).tolist() for key, value in columns.items()}}


def analytical(
    here: MeasuredDevice, task: Task, widths: Widths, structure: Any, kept: IntArray, least_ms: FloatArray
) -> dict[str, Any]:
    """The error of the roofline, as it is shipped and after a handful of measurements of this task."""
    shipped = device(ANALYTICAL)
    costs = NetworkCosts(task.model, structure, task.example_input, forward=task.forward)
    plans, seconds = network_seconds(here.store, widths)
    calibrated = shipped.calibrated(costs, plans[:HANDFUL], 1e3 * seconds[:HANDFUL])
    return {
        "analytical": asdict(agreement(shipped.latency(costs)(kept), least_ms)),
        "calibrated": asdict(agreement(calibrated.latency(costs)(kept), least_ms)),
        "factors": asdict(calibrated.factors),
    }


def predicting_s(latency: CostModel, plans: IntArray) -> float:
    """The least seconds of five times."""
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        latency(plans)
        spent.append(time.perf_counter() - start)
    return min(spent)


def this_cpu(runtime: str, *, patience_s: float) -> MeasuredDevice:
    found = configured("this_cpu", f"device.runtime={runtime}")
    assert isinstance(found, MeasuredDevice)
    return replace(found, care=replace(found.care, patience_s=patience_s))


def device(name: str) -> AnalyticalDevice:
    found = configured(name)
    assert isinstance(found, AnalyticalDevice)
    return found


def configured(name: str, *overrides: str) -> object:
    """The device that conf/device/NAME.yaml says."""
    found: object = instantiate_part(composed(f"device={name}", *overrides, job="profile"), "device")
    return found
