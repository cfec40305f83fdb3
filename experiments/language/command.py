"""The command: searches on SmolLM2-135M, as many as a table needs; what is kept already is not made again."""

import argparse
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from autoprune.machine_cache import keep_freed_memory
from experiments.cells import kept, pack, unpack
from experiments.language import layers, memory, schedules, study, weights
from experiments.origin import origin
from experiments.readme import write_between

HERE = Path(__file__).resolve().parent
CELLS = HERE.parent.parent / "runs" / "language_searches"
ARCHIVE = HERE / "cells.jsonl.gz"
PARTS = {"memory": memory, "weights": weights, "schedules": schedules, "layers": layers, "study": study}
Job = tuple[str, str, str, int]  # part; budget; agent, schedule or kind; seed


def main() -> None:
    parser = argparse.ArgumentParser(prog="experiments/language/searches", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--processes", type=int, default=2, help="of one thread each")
    parser.add_argument("--first", type=int, help="so many of each part's cells, which the table is made of; all")
    asked = parser.parse_args()
    unpack(ARCHIVE, CELLS)
    origins = {part: origin(f"experiments/language/searches --parts {part}") for part in asked.parts}
    for part in asked.parts:
        alone = 1 if part == "memory" else None  # a process's peak is that of all it ever did
        context = get_context("spawn")
        with ProcessPoolExecutor(asked.processes, mp_context=context, max_tasks_per_child=alone) as pool:
            found = list(pool.map(made, jobs(part)[: asked.first]))
        pack(CELLS, ARCHIVE)
        made_by = origins[part]
        (HERE / f"{part}.json").write_text(json.dumps({**made_by, "cells": found}, indent=1) + "\n")
        machine = f"{made_by['machine']['processor']}, {made_by['machine']['cores']} cores"
        lines = [
            *PARTS[part].table(found),
            "",
            f"Made on {made_by['date'][:10]} at commit {made_by['commit']} by `{made_by['command']}`; {machine}. "
            f"Every value: [{part}.json]({part}.json).",
        ]
        write_between(HERE / "README.md", "\n".join(lines) + "\n", name=part)


def jobs(part: str) -> list[Job]:
    """First seeds first, so that what is cut off has all agents."""
    if part == "memory":
        return [(part, "", kind, 0) for kind in memory.KINDS]
    if part == "schedules":
        return [(part, "", schedule, seed) for seed in range(schedules.SEEDS) for schedule in schedules.SCHEDULES]
    if part == "study":
        return [(part, budget, f"{criterion}/{allocation}", 0) for criterion, budget, allocation in study.cells()]
    if part == "layers":
        return [(part, "", agent, seed) for seed in range(layers.SEEDS) for agent in layers.AGENTS]
    found: list[Job] = []
    for budget, seeds in weights.SEEDS.items():
        found += [(part, budget, agent, 0) for agent in (weights.DENSE, *weights.EVALUATIONS)]
        found += [(part, budget, weights.SEARCHED, seed) for seed in range(1, seeds)]
    return found


def made(job: Job) -> dict[str, Any]:
    torch.set_num_threads(1)
    keep_freed_memory(True)
    part, budget, agent, seed = job
    makers: dict[str, Callable[[], Any]] = {
        "memory": partial(memory.cell, agent),
        "weights": partial(weights.cell, budget, agent, seed),
        "schedules": partial(schedules.cell, agent, seed),
        "layers": partial(layers.cell, agent, seed),
        "study": lambda: study.cell(agent.partition("/")[0], budget, agent.partition("/")[2]),
    }
    named = agent.replace(" ", "_").replace("/", "_")
    name = "_".join(filter(None, (part, budget.replace(":", "_"), named, str(seed))))
    found: dict[str, Any] = kept(CELLS, name, makers[part])
    return found
