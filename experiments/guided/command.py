"""The command: searches under budgets of MACs and of latency, recovers what they find, and measures it."""

import argparse
import functools
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from autoprune.cost.budget import parse_budget
from autoprune.device.measured_device import MeasuredDevice
from autoprune.device.profiler import FusedLayerProfiler, NetworkProfiler
from autoprune.device.widths import widths_of
from autoprune.evaluation.judge import Judge
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem
from autoprune.seeding import numpy_rng, torch_generator
from autoprune.structure.graph import find_structure
from autoprune.task.shipped import shipped_task
from experiments.cells import kept
from experiments.configuration import composed, instantiate_part, prepared_by
from experiments.guided.table import markdown
from experiments.origin import origin
from experiments.readme import write_between

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CELLS = ROOT / "runs" / "guided"
TASKS = ("fashion_resnet20", "fashion_plain20", "fashion_mobilenet")
STAGES = ("recovered", "speedup", "timed")
AGENT = "critic_guided"
EVALUATIONS = 200
RECOVERED, SPEEDUP = "macs:0.35", "macs:0.5"  # whose plans' latency is the other searches' budget
SPEEDUP_SEEDS = 2  # which say enough of a quotient that does not vary
FITTED = 32  # plans of the whole network that the sum of layers is corrected by


def main() -> None:
    parser = argparse.ArgumentParser(prog="experiments/guided/run", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):  # so that what is cut off has all tasks and fewer seeds
        for task in arguments.tasks:
            if "recovered" in arguments.stages:
                cell = kept(CELLS, f"recovered_{task}_{seed}", partial(pair, task, seed, RECOVERED, recovers=True))
                rows += cell
            if "speedup" in arguments.stages and seed < SPEEDUP_SEEDS:
                rows += kept(CELLS, f"speedup_{task}_{seed}", partial(pair, task, seed, SPEEDUP, recovers=False))
    if "timed" in arguments.stages:
        write(arguments.out, [row for task in arguments.tasks for row in timed(task, rows)])


def pair(task: str, seed: int, budget: str, *, recovers: bool) -> list[dict[str, Any]]:
    """Plans of searches under the budget, in MACs, at any widths and at steps of the device's latency alone.

    And of searches under the latency that is predicted of the second, which is the faster one, likewise.
    """
    free, stepped = ready(task, 1), ready(task, "device")
    found = {"macs": (free, searched(free, budget, seed)), "macs, steps": (stepped, searched(stepped, budget, seed))}
    predicted = float(stepped.costs["latency"](np.array(found["macs, steps"][1].kept)))
    same = f"latency:{1000 * predicted:.3f}us"
    found |= {"latency": (free, searched(free, same, seed)), "latency, steps": (stepped, searched(stepped, same, seed))}
    dense = float(free.costs["macs"](free.structure.units))
    return [
        {
            "task": task,
            "seed": seed,
            "budget": budget,
            "guided by": name,
            "kept": list(plan.kept),
            "predicted_ms": float(problem.costs["latency"](np.array(plan.kept))),
            "macs": float(problem.costs["macs"](np.array(plan.kept))) / dense,
            **(accuracies(problem, plan, seed) if recovers else {}),
        }
        for name, (problem, plan) in found.items()
    ]


def searched(problem: Problem, budget: str, seed: int) -> PruningPlan:
    bound = parse_budget(budget, problem.costs, problem.structure)
    with TemporaryDirectory() as folder:
        limited = problem.under(bound).limited(EVALUATIONS, seed=seed, folder=Path(folder))
        search = instantiate_part(settings(f"agent={AGENT}"), "agent")
        plan: PruningPlan = search(limited, rng=numpy_rng(seed, "search"))
    return plan


def accuracies(problem: Problem, plan: PruningPlan, seed: int) -> dict[str, float]:
    """On test data, of the repaired network and of the one that was trained after."""
    judge, network = Judge(problem.task, problem.task.data.test), problem.pruned(plan)
    before = judge(network).accuracy
    recover = instantiate_part(settings(), "recover")
    trained = recover(
        network,
        problem.task,
        teacher=problem.task.model,
        generator=torch_generator(seed, "recover"),
        on_step=lambda *_: None,
    )
    return {"post_training": before, "recovered": judge(trained).accuracy}


@functools.cache
def ready(task: str, round_to: Any) -> Problem:
    """The task made ready as the main job does it, with this machine's latency as a cost."""
    profiled(task)
    chosen = settings(f"task={task}", f"structure.round_to={round_to}")
    chosen["evaluation"] |= {"store": None, "precision": "fp32", "batch_size": 50}
    return prepared_by({**chosen, "budget": RECOVERED}, shipped_task(task))


@functools.cache
def profiled(task: str) -> tuple[Any, NetworkProfiler]:
    """Its structure, and what measures whole networks; the task's layers have been measured."""
    device = instantiate_part(settings(), "device")
    assert isinstance(device, MeasuredDevice)
    made = shipped_task(task)
    structure = find_structure(made.model, made.example_input, keep=made.keep)
    widths = widths_of(made.model, structure, made.example_input, forward=made.forward)
    tell = {"on_progress": lambda done, of, what: None}
    FusedLayerProfiler(device, widths, **tell).run()
    networks = NetworkProfiler(device, made, structure, widths, **tell)
    networks.calibrate(FITTED)
    return structure, networks


def settings(*overrides: str) -> dict[str, Any]:
    return composed("device=this_cpu", "device.care.patience_s=600", *overrides)


def timed(task: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a task with what their plans and the dense network take, measured in turn."""
    structure, networks = profiled(task)
    of = [row for row in rows if row["task"] == task]
    plans = np.array([structure.units.tolist(), *(row["kept"] for row in of)])
    timings = networks.timings(plans)
    dense, *each = (1000 * timings.minimum).tolist()
    return [{**row, "ms": round(ms, 5), "dense_ms": round(dense, 5)} for row, ms in zip(of, each, strict=True)]


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    record = {
        **origin("experiments/guided/run"),
        "agent": AGENT,
        "evaluations": EVALUATIONS,
        "rows": rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "guided.json").write_text(json.dumps(record, indent=1) + "\n")
    write_between(folder / "README.md", markdown(record), name="guided")
