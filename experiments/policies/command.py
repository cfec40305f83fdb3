"""The command: searches tables from many seeds; what a search's best plan and its policy's own are worth."""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoprune.evaluation.metered import POLICY
from autoprune.evaluation.outcome import Outcome
from autoprune.prior.uniform_plan import uniform_plan
from autoprune.seeding import numpy_rng
from experiments.cells import kept
from experiments.configuration import composed, instantiate_part
from experiments.ladder.ready import Ready, ready
from experiments.ladder.stages import Cell
from experiments.origin import origin
from experiments.readme import write_between

HERE = Path(__file__).resolve().parent
CELLS_KEPT = HERE.parent.parent / "runs" / "policies"
CELLS = (
    Cell("table_residual", "macs:0.5"),
    Cell("table_plain", "macs:0.5"),
    Cell("table_residual", "macs:0.15"),
    Cell("table_plain", "macs:0.3"),
)
VARIANTS: Mapping[str, Sequence[str]] = {
    "model_based": ["agent=model_based"],
    "model_based, layer by layer": ["agent=model_based", "agent.env.mode=layerwise", "agent.env.observation=groups"],
    "model_based, random ranking": ["agent=model_based", "agent.imagination.ranking=random"],
    "model_based, no self-imitation": ["agent=model_based", "agent.imagination.imitation=0"],
    "model_based, from uniform": ["agent=model_based", "agent.env.prior=uniform"],
    "no model: ppo": ["agent=ppo"],
    "no policy: bayesian": ["agent=bayesian"],
    "bayesian, from uniform": ["agent=bayesian", "agent.start=uniform"],
    "evolution": ["agent=evolution"],
    "evolution, from uniform": ["agent=evolution", "agent.start=uniform"],
    "random_around": ["agent=random_around"],
    "critic_guided": ["agent=critic_guided"],
    "td3": ["agent=td3"],
    "closed_form": ["agent=closed_form"],
}
AT = (5, 20, 50, 100)  # evaluations after which the best plan's regret is shown


def main() -> None:
    """Searches what is asked for and not kept yet, and writes policies.json and the README's table."""
    parser = argparse.ArgumentParser(prog="experiments/policies/run", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    made_by = origin("experiments/policies/run")
    for seed in range(asked.seeds):
        for variant in asked.only:
            for cell in CELLS:
                _kept(cell, variant, seed, asked.evaluations)
    rows = [
        row for variant in VARIANTS if (row := _summary(variant, range(asked.seeds), asked.evaluations)) is not None
    ]
    record = {**made_by, "evaluations": asked.evaluations, "cells": [_word_for(cell) for cell in CELLS], "rows": rows}
    (HERE / "policies.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    write_between(HERE / "README.md", _markdown(rows) + "\n", name="policies")


def _word_for(cell: Cell) -> str:
    """Returns the cell in a word."""
    return f"{cell.task} {cell.budget}"


def _path(cell: Cell, variant: str, seed: int, evaluations: int) -> str:
    words = "".join(letter if letter.isalnum() else "_" for letter in f"{cell.task} {cell.budget} {variant}")
    return f"{words}_{evaluations}_{seed}"


def _kept(cell: Cell, variant: str, seed: int, evaluations: int) -> dict[str, Any]:
    made: dict[str, Any] = kept(
        CELLS_KEPT,
        _path(cell, variant, seed, evaluations),
        lambda: _run(ready(cell), composed(*VARIANTS[variant]), evaluations, seed),
    )
    return made


def _run(cell: Ready, settings: dict[str, Any], evaluations: int, seed: int) -> dict[str, Any]:
    """Regrets of one search after every evaluation, where 0 is the table's best plan and 1 the uniform one."""
    assert cell.bounds is not None
    best = cell.bounds[0]
    uniform = cell.proxy(uniform_plan(cell.problem.structure, cell.problem.projector))
    regrets: list[float] = []
    own: list[float] = []

    def record(outcome: Outcome, evaluation: int, phase: str) -> None:
        regret = (best - outcome.score) / (best - uniform)
        regrets.append(min([*regrets[-1:], regret if outcome.feasible and outcome.whole else np.inf]))
        if phase == POLICY:
            own.append(regret)

    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        problem = cell.problem.limited(evaluations, record=record, seed=seed, folder=Path(folder))
        instantiate_part(settings, "agent")(problem, rng=numpy_rng(seed, "search"))
    seconds = time.process_time() - start
    return {
        "regrets": [regrets[min(at, len(regrets)) - 1] for at in AT],
        "policy": min(own) if own else None,
        "seconds": round(seconds, 2),
    }


def _summary(variant: str, seeds: Sequence[int], evaluations: int) -> dict[str, Any] | None:
    """The means over cells and the seeds that are there, or None where there is none."""
    runs = [
        json.loads(path.read_text())
        for cell in CELLS
        for seed in seeds
        if (path := CELLS_KEPT / f"{_path(cell, variant, seed, evaluations)}.json").exists()
    ]
    if not runs:
        return None
    regrets = np.array([run["regrets"] for run in runs])
    own = [run["policy"] for run in runs if run["policy"] is not None]
    return {
        "variant": variant,
        "overrides": list(VARIANTS[variant]),
        "runs": len(runs),
        **{f"after {at}": float(regrets[:, index].mean()) for index, at in enumerate(AT)},
        "optimum met": float((regrets[:, -1] <= 1e-9).mean()),
        "policy": float(np.mean(own)) if own else None,
        "policy_worst": float(np.max(own)) if own else None,
        "seconds": float(np.mean([run["seconds"] for run in runs])),
    }


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = [*(f"after {at}" for at in AT), "optimum met", "policy's own plan", "its worst run", "CPU seconds", "runs"]
    lines = [f"| search | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for row in rows:
        values = [f"{row[f'after {at}']:.3f}" for at in AT]
        values.append(f"{100 * row['optimum met']:.0f} %")
        values += ["–" if row[name] is None else f"{row[name]:.3f}" for name in ("policy", "policy_worst")]
        values += [f"{row['seconds']:.1f}", str(row["runs"])]
        lines.append(f"| {row['variant']} | {' | '.join(values)} |")
    return "\n".join(lines)
