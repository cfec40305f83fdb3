"""`scripts/benchmark`: measures figures, and prints and saves each as soon as it is there."""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from autoprune.machine_cache import MeasurementCache, choose_allocator
from experiments.benchmark.bench import Bench
from experiments.benchmark.figures import FIGURES, Figure
from experiments.benchmark.record import HERE, ROOT, figure_record, merged, shown, write_table

TOY_FOLDER = ROOT / "runs" / "benchmark"


def main(arguments: Sequence[str] | None = None) -> None:
    asked = _parser().parse_args(arguments)
    folder = asked.out or (TOY_FOLDER if asked.quick else HERE)
    torch.set_num_threads(asked.threads or (1 if asked.quick else os.cpu_count() or 1))  # the rest as a search does
    keeps = choose_allocator(MeasurementCache(None))
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch), quick=asked.quick, repeats=asked.repeats, freed_memory_kept=keeps)
        for figure in FIGURES:
            if not asked.only or figure.number in asked.only:
                _measure(figure, bench, folder)
    print(f"\n{time.perf_counter() - start:.0f} s; the table stands in {folder / 'README.md'}")


def _measure(figure: Figure, bench: Bench, folder: Path) -> None:
    start = time.perf_counter()
    rows = figure.measure(bench)
    found = figure_record(figure, rows, bench=bench, seconds=time.perf_counter() - start)
    write_table(folder, merged(folder, found))
    print(f"\n{figure.number}. {figure.title} ({found['seconds']} s)")
    for row in found["rows"]:
        goal = f"  reach {row['reach']:g}, aim {row['aim']:g}: {row['met']}" if "met" in row else ""
        low, median, high = (shown(v, row["unit"]) for v in (row["quartiles"][0], row["median"], row["quartiles"][1]))
        print(f"   {median:>10} [{low}, {high}]  {row['label']}{goal}", flush=True)
        if row["note"]:
            print(f"{'':14}{row['note']}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/benchmark", description=__doc__)
    parser.add_argument("--only", type=_numbers, help="figures, such as 1,2; the others stay as they were")
    parser.add_argument("--repeats", type=_positive, help="of every figure; each has its own number otherwise")
    parser.add_argument("--threads", type=_positive, help="of torch; one per core, with --quick one")
    parser.add_argument("--quick", action="store_true", help="toy sizes, to see that everything runs")
    parser.add_argument("--out", type=Path, help=f"folder; {HERE.relative_to(ROOT)}, or with --quick runs/benchmark")
    return parser


def _numbers(text: str) -> frozenset[int]:
    known = {figure.number for figure in FIGURES}
    try:
        numbers = frozenset(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"figures are numbers with commas between, such as 1,2; got {text!r}"
        ) from None
    if not numbers <= known:
        raise argparse.ArgumentTypeError(f"there is no figure {sorted(numbers - known)}; there are {sorted(known)}")
    return numbers


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is needed, got {text!r}")
    return int(text)
