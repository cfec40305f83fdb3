"""The benchmark's results as a file that outlives single figures, and as the README's table."""

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autoprune.files import atomic_write
from autoprune.runs import machine, versions
from experiments.benchmark.bench import Bench
from experiments.benchmark.figures import Figure
from experiments.benchmark.row import Row
from experiments.readme import table, write_between

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
RESULTS, README, LIMITS = "benchmark.json", "README.md", "limits.json"
MEASURED = ("autoprune", "conf", "scripts/benchmark", "experiments/benchmark/*.py")  # what a figure depends on
HEADINGS = ("#", "figure", "median", "of minima", "middle half", "repeats", "reach", "aim", "met")
VERDICTS = {"aim": "aim", "reach": "reach", "no": "**no**"}


def figure_record(figure: Figure, rows: Sequence[Row], *, bench: Bench, seconds: float) -> dict[str, Any]:
    """A figure with all that says where its numbers come from."""
    return {
        "number": figure.number,
        "title": figure.title,
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "seed": bench.seed,
        "freed_memory_kept": bench.freed_memory_kept,
        "quick": bench.quick,
        "seconds": round(seconds, 1),
        "rows": [row.as_json() for row in rows],
    }


def commit() -> str:
    """The last commit of what is measured; with + and a hash of the changes since, where there are any."""
    paths = ["--", *MEASURED]
    last = _git("log", "-1", "--format=%h", *paths).decode().strip()
    changes = _git("diff", "HEAD", *paths)
    for name in sorted(_git("ls-files", "--others", "--exclude-standard", *paths).decode().splitlines()):
        changes += name.encode() + (ROOT / name).read_bytes()
    return f"{last}+{hashlib.sha256(changes).hexdigest()[:6]}" if changes else last


def merged(folder: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the figure into the folder's file. Others stay if they were measured on this machine, at any commit."""
    file = folder / RESULTS
    known = json.loads(file.read_text())["figures"] if file.exists() else []
    figures = {figure["number"]: figure for figure in known if _comparable(figure, found)} | {found["number"]: found}
    record = {"command": "scripts/benchmark", "figures": [figures[number] for number in sorted(figures)]}
    with atomic_write(file) as partial:
        partial.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return record


def _comparable(figure: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    return all(figure[what] == found[what] for what in ("machine", "quick"))


def write_table(folder: Path, record: Mapping[str, Any]) -> None:
    """Replaces what stands between the README's markers, or makes a README that is the table alone."""
    write_between(folder / README, markdown(record, json.loads((HERE / LIMITS).read_text())), name="benchmark")


def markdown(record: Mapping[str, Any], limits: Mapping[str, str]) -> str:
    """limits: figure's number → a sentence on what keeps it from being better."""
    rows: list[list[str]] = []
    for figure in record["figures"]:
        rows.append([figure["number"], f"**{figure['title']}**", *[""] * 7])
        rows += [["", *_cells(row)] for row in figure["rows"]]
    lines = list(table(HEADINGS, rows))
    lines += ["", "What limits each, and where it was measured:", ""]
    for figure in record["figures"]:
        toy = "toy sizes; " if figure["quick"] else ""
        measured = f"({toy}{figure['date'][:10]}, commit {figure['commit']}, {figure['seconds']:.0f} s)"
        lines.append(f"- {figure['number']}: {limits.get(str(figure['number'])) or 'not looked at yet.'} {measured}")
    latest = max(record["figures"], key=lambda figure: figure["date"])
    place, packages = latest["machine"], latest["versions"]
    where = f"{place['processor']}, {place['cores']} cores, {place['threads']} threads of torch, {place['system']}"
    software = f"Python {packages['python']}, torch {packages['torch']}"
    return "\n".join([*lines, "", f"On {where}; {software}; seed {latest['seed']}.", ""])


def _cells(row: Mapping[str, Any]) -> list[str]:
    label = row["label"] + (f" ({row['note']})" if row["note"] else "")
    goals = [shown(row[name], row["unit"]) if "met" in row else "" for name in ("reach", "aim")]
    if "met" in row:
        goals = [f"{'≥' if row['higher'] else '≤'} {goal}" for goal in goals]
    low, high = (shown(value, row["unit"]) for value in row["quartiles"])
    cells = [label, shown(row["median"], row["unit"]), shown(row["of_minima"], row["unit"]), f"{low} – {high}"]
    return [*cells, str(row["repeats"]), *goals, VERDICTS[row["met"]] if "met" in row else ""]


def shown(value: float, unit: str) -> str:
    """Three digits, and the unit; a ratio's × stands before nothing."""
    digits = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{digits}{'' if unit == '×' else ' '}{unit}"


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True).stdout
