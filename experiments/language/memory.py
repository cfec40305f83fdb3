"""How much memory a search takes, in a process of its own, the first time on a machine."""

import resource
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.language.searched import ready, searched
from experiments.readme import table as markdown_table

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
    titles = ("removed", "peak of the process", "÷ the weights' bytes at fp32", "judged at")
    rows = (
        [c["kind"], f"{c['peak_bytes'] / 1e9:.2f} GB", f"{c['peak_bytes'] / c['fp32_bytes']:.1f}", c["precision"]]
        for c in cells
    )
    return list(markdown_table(titles, rows))
