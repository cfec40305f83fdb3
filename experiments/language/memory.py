"""How much memory a search takes, in a process of its own, the first time on a machine."""

import resource
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.language.searched import ready, searched

KINDS = {
    "heads and FFN neurons": ("experiment=language", "budget=weights:0.7"),
    "attentions and FFNs": ("experiment=language_depth", "repair=none", "budget=weights:0.75"),
    "single weights, Wanda": ("experiment=language_weights", "budget=weights:0.3"),
}
EVALUATIONS = 17  # the uniform plan and two generations
KIB = 1024


def cell(kind: str) -> dict[str, Any]:
    """Of 48 windows, and with no setting known from before: whether bf16 ranks as fp32 does is measured as well."""
    with tempfile.TemporaryDirectory() as store:
        problem = ready(KINDS[kind], store=Path(store))
        searched(problem, ["agent=evolution"], evaluations=EVALUATIONS, seed=0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
        problem.close()
    parameters = sum(parameter.numel() for parameter in problem.task.model.parameters())
    return {"kind": kind, "peak_bytes": peak, "fp32_bytes": 4 * parameters, "precision": problem.measured["precision"]}


def table(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| removed | peak of the process | ÷ the weights' bytes at fp32 | judged at |", "|---|---|---|---|"]
    for cell in cells:
        ratio = cell["peak_bytes"] / cell["fp32_bytes"]
        lines.append(f"| {cell['kind']} | {cell['peak_bytes'] / 1e9:.2f} GB | {ratio:.1f} | {cell['precision']} |")
    return lines
