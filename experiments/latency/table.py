"""What was measured, as a table and in sentences."""

from collections.abc import Mapping
from typing import Any

from experiments.readme import table

HEADINGS = (
    "task", "runtime", "mean error", "largest", "Spearman", "of the median", "roofline", "calibrated", "profile",
)  # fmt: skip
NAMES = {"onnxruntime": "ONNX Runtime", "torch": "torch", "torch_compiled": "torch, compiled"}


def markdown(record: Mapping[str, Any]) -> str:
    machine, rows = record["machine"], record["rows"]
    count = len(rows[0]["plans"]["kept"])
    origin = (
        f"{record['date'][:10]}, {machine['processor']}, one thread, batch 1, torch {record['versions']['torch']}, "
        f"ONNX Runtime {record['versions']['onnxruntime']}; {count} random plans for each row, at any widths and at "
        "multiples of 4, 8 and 16 by turns."
    )
    return "\n".join([origin, "", *table(HEADINGS, map(_cells, rows)), "", *sentences(record)]) + "\n"


def _cells(row: Mapping[str, Any]) -> list[str]:
    measured = row["measured"]
    errors = [percent(row[by]["error"]) for by in ("median", "analytical", "calibrated")]
    cells = [f"`{row['task']}`", NAMES[row["runtime"]], percent(measured["error"]), percent(measured["largest"])]
    return [*cells, f"{measured['spearman']:.4f}", *errors, profile(row)]


def profile(row: Mapping[str, Any]) -> str:
    return f"{row['profile']['points']:,} points, {row['profile']['seconds']:.0f} s"


def sentences(record: Mapping[str, Any]) -> list[str]:
    """What the table says, in words that follow from its numbers."""
    rows = record["rows"]
    worst = max(row["measured"]["error"] for row in rows)
    least = min(row["measured"]["spearman"] for row in rows)
    calibrated = max(row["calibrated"]["error"] for row in rows)
    slowest = max(row["predicting_ms"] for row in rows)
    return [
        f"- From tables, predictions are off by at most {percent(worst)} on average, and rank plans with a Spearman "
        f"correlation of at least {least:.4f}.",
        f"- The roofline of “{record['analytical']}” is off by at most {percent(calibrated)} on average once it is "
        f"calibrated by {record['handful']} measured plans of the task.",
        f"- 10,000 plans are predicted in at most {slowest:.0f} ms.",
        "- A profile takes so long where nothing was measured before; a layer that an earlier row shares is not "
        "measured again.",
    ]


def percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"
