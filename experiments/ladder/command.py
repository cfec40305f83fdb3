"""The command: runs what is not kept yet, writes trials and what was measured, and the README's tables."""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from autoprune.comparison.run_summary import RunSummary, write_summaries
from experiments.ladder.front_page import front_page
from experiments.ladder.ready import dense_accuracy
from experiments.ladder.stages import QUICKLY, STAGES, Job
from experiments.ladder.table import markdown
from experiments.ladder.trials import trials_of
from experiments.origin import origin
from experiments.readme import write_between

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CELLS = ROOT / "runs" / "ladder"


def main() -> None:
    parser = argparse.ArgumentParser(prog="experiments/ladder/run", description=__doc__)
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(QUICKLY))
    parser.add_argument("--seeds", type=int, default=None, help="so many and no more")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each")
    parser.add_argument("--quick", action="store_true", help="toy sizes, which show that everything runs")
    parser.add_argument("--out", type=Path, default=HERE)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    stages, cells = (QUICKLY, asked.out / "cells") if asked.quick else (STAGES, CELLS)
    # asked before anything is written, which would make the tree a changed one
    made_by = {name: origin(f"experiments/ladder/run --stages {name}") for name in asked.stages}
    for name in asked.stages:
        jobs = stages[name].jobs(asked.seeds)
        start = time.perf_counter()
        searched = partial(trials_of, cells=cells)
        if asked.processes == 1:
            found = list(map(searched, jobs))
        else:
            with ProcessPoolExecutor(asked.processes, mp_context=get_context("spawn")) as pool:
                found = list(pool.map(searched, jobs))
        write(asked.out, name, jobs, found, {**made_by[name], "seconds": round(time.perf_counter() - start)})


def write(folder: Path, name: str, jobs: list[Job], found: list[list[dict[str, Any]]], made_by: dict[str, Any]) -> None:
    """NAME.jsonl.gz for `autoprune compare`, NAME.json with what made it, and the README's table."""
    trials = [RunSummary.from_json(row["trial"]) for rows in found for row in rows]
    write_summaries(folder / f"{name}.jsonl.gz", trials)
    record = {
        **made_by,
        "searched": [
            {**asdict(job), "trials": [{key: value for key, value in row.items() if key != "trial"} for row in rows]}
            for job, rows in zip(jobs, found, strict=True)
        ],
    }
    (folder / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    write_between(folder / "README.md", "\n".join(markdown(record, found)) + "\n", name=name)
    if folder == HERE and name == "recovered":
        of_task = {job.cell.task: job.cell for job in jobs}  # any: the dense network is the same in all of a task's
        dense = {task: dense_accuracy(cell) for task, cell in of_task.items()}
        write_between(ROOT / "README.md", front_page(record, trials, dense), name="results")
