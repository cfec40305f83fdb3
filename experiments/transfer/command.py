"""The command: one architecture family is left out at a time, and the policies are tried on it."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from experiments.origin import origin
from experiments.readme import write_between
from experiments.transfer import conditioned, few_shot, zero_shot
from experiments.transfer.table import markdown

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CELLS = ROOT / "runs" / "transfer"
STAGES: dict[str, Callable[[Path, int], list[dict[str, Any]]]] = {
    "zero_shot": zero_shot.rows,
    "few_shot": few_shot.rows,
    "conditioned": conditioned.rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="experiments/transfer/run", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "transfer.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for seed in range(arguments.seeds):  # so that what is cut off has all families and fewer seeds
        for stage in arguments.stages:
            rows = STAGES[stage](CELLS, seed)
            kept = [row for row in record.get(stage, []) if row["seed"] != seed]
            record |= {
                **origin("experiments/transfer/run"),
            }
            record[stage] = sorted([*kept, *rows], key=lambda row: row["seed"])
            path.write_text(json.dumps(record, indent=1) + "\n")
            if (arguments.out / "README.md").exists():
                write_between(arguments.out / "README.md", markdown(record), name="transfer")
