"""The command: searches tables and networks from many seeds; what best plans and policies' own are worth."""

import argparse
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.cells import pack, unpack
from experiments.ladder.stages import Cell
from experiments.origin import origin
from experiments.policies import budgets, few_shot, long, rule
from experiments.policies.runs import (
    ALL,
    AT,
    CELLS,
    CELLS_KEPT,
    FROM_UNIFORM,
    LIVE_AT,
    LIVE_CELLS,
    VARIANTS,
    kept_run,
    runs_of,
)  # fmt: skip
from experiments.readme import write_between

HERE = Path(__file__).resolve().parent
ARCHIVE = HERE / "cells.jsonl.gz"
FIRST_SEED = 200  # nothing was developed with it or a later one
COMPARED = ("model_based", "evolution", "critic_guided")
EVERY_SEED = (*COMPARED, *(f"{name}, from uniform" for name in COMPARED))
FEWEST = 3  # seeds of all others
SEEDLESS = ("closed_form",)
LIVE = ("evolution", "model_based", "critic_guided")
Row = Mapping[str, Any]


def main() -> None:
    """Searches what is asked for and not kept yet, and writes policies.json and the README's tables."""
    parser = argparse.ArgumentParser(prog="experiments/policies/run", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="of searches on tables")
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument("--live", type=int, default=0, metavar="SEEDS", help="of networks that are evaluated")
    parser.add_argument("--long", type=int, default=0, metavar="SEEDS", help="of 300 evaluations on networks")
    parser.add_argument("--budgets", type=int, default=0, metavar="SEEDS", help="of five budgets on the tables")
    parser.add_argument("--few-shot", type=int, default=0, metavar="SEEDS", help="of searches that begin with a policy")
    parser.add_argument("--live-budgets", type=int, default=0, metavar="SEEDS", help="of five budgets on Plain-20")
    parser.add_argument("--only", nargs="+", choices=list(ALL), default=list(ALL))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    made_by = origin("experiments/policies/run")
    unpack(ARCHIVE, CELLS_KEPT)
    for seed in range(FIRST_SEED, FIRST_SEED + asked.seeds):
        for variant in asked.only:
            most = 1 if variant in SEEDLESS else asked.seeds if variant in EVERY_SEED else FEWEST
            for cell in CELLS if seed < FIRST_SEED + most else ():
                kept_run(cell, variant, seed, asked.evaluations)
    for seed in range(asked.budgets):
        for task in budgets.TABLES:
            budgets.keep(task, FIRST_SEED + seed)
    for seed in range(asked.few_shot):
        few_shot.keep(FIRST_SEED + seed)
    for seed in range(asked.live):
        for cell in LIVE_CELLS:
            for variant in LIVE:
                if variant in asked.only:
                    kept_run(cell, variant, seed, LIVE_AT[-1])
    for seed in range(asked.long):
        long.keep(seed)
    for seed in range(asked.live_budgets):
        for task in budgets.NETWORKS:
            budgets.keep(task, FIRST_SEED + seed)
    pack(CELLS_KEPT, ARCHIVE)
    _write(made_by, asked.evaluations)


def _write(made_by: Mapping[str, Any], evaluations: int) -> None:
    """policies.json and the README's tables say what is kept; rows that no cell is kept of stay as they are."""
    rows = [row for variant in ALL if (row := _summary(variant, evaluations)) is not None]
    live = [row for cell in LIVE_CELLS for variant in LIVE if (row := _live_summary(cell, variant)) is not None]
    path = HERE / "policies.json"
    before = json.loads(path.read_text(encoding="utf-8"))
    record = {
        **made_by,
        "evaluations": evaluations,
        "cells": [_word_for(cell) for cell in CELLS],
        "rule": _replaced(before["rule"], [row for row in rule.rows(evaluations) if row["holds"] is not None], "part"),
        "rows": _replaced(before["rows"], rows, "variant"),
        "live": _replaced(before["live"], live, "cell", "variant"),
        "long": _replaced(before["long"], long.rows(), "network"),
        "budgets": _replaced(before["budgets"], budgets.rows(), "task", "way"),
        "few_shot": _replaced(before["few_shot"], few_shot.rows(), "variant"),
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name, text in {
        "rule": rule.markdown(record["rule"]),
        "policies": _markdown([row for row in record["rows"] if row["variant"] in VARIANTS]),
        "from_uniform": _markdown([row for row in record["rows"] if row["variant"] in FROM_UNIFORM]),
        "live": _live_markdown(record["live"]),
        "long": long.markdown(record["long"]),
        "budgets": budgets.markdown(record["budgets"]),
        "few_shot": few_shot.markdown(record["few_shot"]),
    }.items():
        write_between(HERE / "README.md", text + "\n", name=name)


def _replaced(before: Sequence[Row], made: Sequence[Row], *keys: str) -> list[Row]:
    """The rows before, with those that have the same values of the keys replaced, and new ones behind them."""
    return list({tuple(row[key] for key in keys): row for row in (*before, *made)}.values())


def _word_for(cell: Cell) -> str:
    """Returns the cell in a word."""
    return f"{cell.task} {cell.budget}"


def _summary(variant: str, evaluations: int) -> dict[str, Any] | None:
    """The means over cells of the means over the seeds that are there, or None where a cell has none."""
    cells = [list(runs_of(cell, variant, evaluations).values()) for cell in CELLS]
    if not all(cells):
        return None
    runs = [run for cell in cells for run in cell]
    regrets = np.mean([np.mean([run["regrets"] for run in cell], axis=0) for cell in cells], axis=0)
    optimum = np.mean([np.mean([run["regrets"][-1] <= 1e-9 for run in cell]) for cell in cells])
    learned = runs[0]["policy"] is not None
    return {
        "variant": variant,
        "overrides": list(ALL[variant]),
        "runs": [len(cell) for cell in cells],
        **{f"after {at}": float(value) for at, value in zip(AT, regrets, strict=True)},
        "optimum met": float(optimum),
        "policy": float(np.mean([np.mean([run["policy"] for run in cell]) for cell in cells])) if learned else None,
        "policy_worst": max(run["policy"] for run in runs) if learned else None,
        "seconds": float(np.mean([run["seconds"] for run in runs])),
    }


def _live_summary(cell: Cell, variant: str) -> dict[str, Any] | None:
    """The means over the seeds that are there, or None where there is none; ratios to the uniform plan's divergence."""
    runs = list(runs_of(cell, variant, LIVE_AT[-1]).values())
    if not runs:
        return None
    best = np.exp(np.array([run["regrets"] for run in runs]).mean(axis=0))
    own = [run["policy"] for run in runs if run["policy"] is not None]
    return {
        "cell": _word_for(cell),
        "variant": variant,
        "runs": len(runs),
        "start": float(np.exp(np.mean([run["start"] for run in runs]))),
        **{f"after {at}": float(value) for at, value in zip(LIVE_AT, best, strict=True)},
        "policy": float(np.exp(np.mean(own))) if own else None,
        "policy_never_worse_than_start": all(run["policy"] <= run["start"] for run in runs) if own else None,
        "agent_share": float(np.mean([run["agent_share"] for run in runs])),
    }


def _live_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "None was run yet."
    heads = [
        "cell",
        "search",
        "closed form",
        *(f"after {at}" for at in LIVE_AT),
        "policy's own plan",
        "agent's share",
        "runs",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        values = [
            row["cell"],
            row["variant"],
            *(f"{row[key]:.3f}" for key in ("start", *(f"after {at}" for at in LIVE_AT))),
        ]
        values += ["–" if row["policy"] is None else f"{row['policy']:.3f}", f"{100 * row['agent_share']:.0f} %"]
        lines.append(f"| {' | '.join([*values, str(row['runs'])])} |")
    return "\n".join(lines)


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = [
        *(f"after {at}" for at in AT),
        "optimum met",
        "policy's own plan",
        "its worst run",
        "CPU seconds",
        "runs in the cells",
    ]
    lines = [f"| search | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for row in rows:
        values = [f"{row[f'after {at}']:.3f}" for at in AT]
        values.append(f"{100 * row['optimum met']:.0f} %")
        values += ["–" if row[name] is None else f"{row[name]:.3f}" for name in ("policy", "policy_worst")]
        values += [f"{row['seconds']:.1f}", ", ".join(map(str, row["runs"]))]
        lines.append(f"| {row['variant']} | {' | '.join(values)} |")
    return "\n".join(lines)
