"""Where ONNX Runtime's time goes in a pruned network: node by node, beside the MACs that its tiles compute."""

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from autoprune.cost.budget import parse_budget
from autoprune.cost.counted import CostSettings, Countable
from autoprune.cost.projection import Projector
from autoprune.export.onnx import export_onnx
from autoprune.prior.uniform_plan import uniform_plan
from autoprune.runs import machine, versions
from autoprune.structure.edit import shrink
from autoprune.structure.graph import find_structure
from autoprune.task.shipped import shipped_task
from experiments.readme import table as markdown_table

TASKS, BUDGETS = ("fashion_resnet20", "fashion_plain20"), (0.15, 0.3, 0.5)
TILE = 16  # channels of ONNX Runtime's blocked layout where a processor has AVX-512
RUNS, ROUNDS = 300, 400
OUT = Path(__file__).parent / "node_times.json"


def networks(name: str) -> tuple[dict[str, nn.Module], Any]:
    """The dense network and its uniform plans, unit 0 first: widths decide times, and which units are kept does not."""
    task = shipped_task(name)
    structure = find_structure(task.model, task.example_input, keep=task.keep, round_to="auto")
    costs = Countable(task.model, structure, task.example_input, forward=task.forward, settings=CostSettings())
    ranking = {group.name: torch.arange(group.units) for group in structure.groups}
    nets: dict[str, nn.Module] = {"dense": task.model}
    for budget in BUDGETS:
        plan = uniform_plan(structure, Projector(structure, parse_budget(f"macs:{budget}", costs, structure)))
        nets[f"macs:{budget}"] = shrink(task.model, structure, plan, ranking)
    return nets, task


def macs(network: nn.Module, example: Any, *, tile: int) -> int:
    """MACs of its convolutions where outputs come in whole tiles, and inputs too once they are that many."""
    total = 0

    def hook(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d)
        outputs, read = -(-layer.out_channels // tile) * tile, layer.in_channels
        total += outputs * read * layer.kernel_size[0] * layer.kernel_size[1] * output.shape[2] * output.shape[3]

    hooks = [layer.register_forward_hook(hook) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        network(example)
    for handle in hooks:
        handle.remove()
    return total


def options(profile: Path | None = None, *, blocked: bool = True) -> onnxruntime.SessionOptions:
    """One thread, all optimisations; not blocked: without those that change the memory layout."""
    levels = onnxruntime.GraphOptimizationLevel
    chosen = onnxruntime.SessionOptions()
    chosen.graph_optimization_level = levels.ORT_ENABLE_ALL if blocked else levels.ORT_ENABLE_EXTENDED
    chosen.intra_op_num_threads = chosen.inter_op_num_threads = 1
    if profile is not None:
        chosen.enable_profiling, chosen.profile_file_prefix = True, os.fspath(profile)
    return chosen


def kernels(path: Path, feed: dict[str, Any], folder: Path) -> dict[str, float]:
    """Kind of node → the sum over nodes of the least microseconds that each took."""
    session = onnxruntime.InferenceSession(os.fspath(path), options(folder / "profile"))
    for _ in range(RUNS):
        session.run(None, feed)
    least: dict[tuple[str, str], float] = {}
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            key = event["args"]["op_name"], event["name"]
            least[key] = min(least.get(key, event["dur"]), event["dur"])
    kinds: dict[str, float] = {}
    for (kind, _), microseconds in least.items():
        kinds[kind] = kinds.get(kind, 0.0) + microseconds
    return kinds


def study(name: str) -> dict[str, Any]:
    """A row for each network of the task."""
    nets, task = networks(name)
    feed = {"input": task.example_input.numpy()}
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder, sessions = Path(temporary), {}
        for label, network in nets.items():
            path = folder / f"{label.replace(':', '_')}.onnx"
            export_onnx(network, task.example_input, path, forward=task.forward)
            kinds = kernels(path, feed, folder)
            for blocked in (True, False):
                session = onnxruntime.InferenceSession(os.fspath(path), options(blocked=blocked))
                sessions[label, blocked] = session
            rows[label] = {
                "file_nodes": dict(Counter(node.op_type for node in onnx.load(path).graph.node)),
                "macs": macs(network, task.example_input, tile=1),
                "tiled_macs": macs(network, task.example_input, tile=TILE),
                "kernel_us": kinds,
            }
        times: dict[tuple[str, bool], list[float]] = {key: [] for key in sessions}
        for _ in range(ROUNDS):
            for key, session in sessions.items():
                begun = time.perf_counter()
                session.run(None, feed)
                times[key].append(time.perf_counter() - begun)
    for label, row in rows.items():
        row["least_us"], row["unblocked_us"] = (1e6 * float(np.min(times[label, blocked])) for blocked in (True, False))
        row["theoretical"] = rows["dense"]["macs"] / row["macs"]
        row["tiled"] = rows["dense"]["tiled_macs"] / row["tiled_macs"]
        row["measured"] = rows["dense"]["least_us"] / row["least_us"]
    return rows


def table(networks_of: dict[str, Any]) -> str:
    """The README's table."""
    headings = ("network", "left", "MACs", "tiles of 16", "measured", "reordering", "time", "in one layout")
    lines = []
    for name, rows in networks_of.items():
        for label, row in rows.items():
            reorder = row["kernel_us"].get("ReorderOutput", 0) / sum(row["kernel_us"].values())
            factors = [f"{row[key]:.2f}×" for key in ("theoretical", "tiled", "measured")]
            times = [f"{row[key] / 1e3:.2f} ms" for key in ("least_us", "unblocked_us")]
            lines.append([name, label, *factors, f"{reorder:.0%}", *times])
    return "\n".join(markdown_table(headings, lines))


def main() -> None:
    argparse.ArgumentParser(prog="experiments/runtime_profile/run", description=__doc__).parse_args()
    torch.set_num_threads(1)
    tables = {name: study(name) for name in TASKS}
    OUT.write_text(json.dumps({"versions": versions(), "machine": machine(), "networks": tables}, indent=1) + "\n")
    print(table(tables))
