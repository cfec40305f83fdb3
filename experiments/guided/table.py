"""What was measured, as tables and in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autoprune.comparison.run_summary import agent_name
from experiments.bootstrap import bootstrapped_mean
from experiments.readme import table

KINDS = ("macs", "macs, steps", "latency", "latency, steps")
BASE = "macs, steps"  # whose latency the others have
Row = Mapping[str, Any]


def markdown(record: Mapping[str, Any]) -> str:
    seeds = len({row["seed"] for row in record["rows"]})
    lines = [
        f"{record['date'][:10]}, commit {record['commit']}, {record['machine']['processor']}, one thread, batch 1, "
        f"ONNX Runtime {record['versions']['onnxruntime']}; `agent={agent_name(record['agent'])}`, "
        f"{record['evaluations']} evaluations, {seeds} seeds.",
        "",
    ]
    recovered = [row for row in record["rows"] if "recovered" in row]
    lines += accuracy(recovered) if recovered else []
    speeds = [row for row in record["rows"] if "recovered" not in row]
    lines += speedup(speeds) if speeds else []
    return "\n".join(lines)


def accuracy(rows: Sequence[Row]) -> list[str]:
    """Latency-guided over MACs-guided, at one predicted latency."""
    heading = f"### At equal latency: that of a search under `{rows[0]['budget']}`, at steps"
    titles = ("task", "guided by", "MACs", "measured", "post-training, %", "recovered, %", "over MACs at steps, points")
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        for kind in KINDS:
            of = [row for row in rows if (row["task"], row["guided by"]) == (task, kind)]
            base = [row for row in rows if (row["task"], row["guided by"]) == (task, BASE)]
            over = [100 * (row["recovered"] - other["recovered"]) for row, other in zip(of, base, strict=True)]
            cells = [
                f"`{task}`" if kind == KINDS[0] else "",
                kind,
                f"{100 * mean(of, 'macs'):.1f} %",
                f"{mean(of, 'ms'):.3f} ms of {mean(of, 'dense_ms'):.3f}",
                f"{100 * mean(of, 'post_training'):.2f}",
                f"{100 * mean(of, 'recovered'):.2f}",
                "" if kind == BASE else interval(over),
            ]
            lines.append(cells)
    note = "Means over seeds; differences are paired, with 95 % bootstrap intervals over seeds."
    return [heading, "", *table(titles, lines), "", note, ""]


def speedup(rows: Sequence[Row]) -> list[str]:
    """How much of the theoretical speedup is there."""
    heading = f"### Measured ÷ theoretical speedup: latency of a search under `{rows[0]['budget']}`"
    speeds = ("theoretical", "measured", "measured ÷ theoretical", "predicted ÷ measured latency")
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        for kind in KINDS:
            of = [row for row in rows if (row["task"], row["guided by"]) == (task, kind)]
            measured = [row["dense_ms"] / row["ms"] for row in of]
            share = [fast * row["macs"] for fast, row in zip(measured, of, strict=True)]
            cells = [
                f"`{task}`" if kind == KINDS[0] else "",
                kind,
                f"{100 * mean(of, 'macs'):.1f} %",
                f"{np.mean([1 / row['macs'] for row in of]):.2f}×",
                f"{np.mean(measured):.2f}×",
                f"{np.mean(share):.2f}",
                f"{np.mean([row['predicted_ms'] / row['ms'] for row in of]):.3f}",
            ]
            lines.append(cells)
    return [heading, "", *table(("task", "guided by", "MACs", *speeds), lines), ""]


def mean(rows: Sequence[Row], key: str) -> float:
    return float(np.mean([row[key] for row in rows]))


def interval(values: Sequence[float]) -> str:
    return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*bootstrapped_mean(values))
