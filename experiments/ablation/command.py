"""The command: searches every table with every variant, and writes the README's table and its numbers."""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.evaluation.metered import POLICY
from autoprune.evaluation.outcome import Outcome
from autoprune.prior.uniform_plan import uniform_plan
from autoprune.seeding import numpy_rng
from experiments.configuration import composed, instantiate_part
from experiments.ladder.ready import Ready
from experiments.ladder.stages import Cell
from experiments.readme import table, write_between

HERE = Path(__file__).resolve().parent
CELLS = [Cell("table_plain", "macs:0.3"), Cell("table_residual", "macs:0.3")]
GUIDANCE = "agent.agent.critic_guidance"
VARIANTS: Mapping[str, Sequence[str]] = {
    "critic-guided search": ["agent=critic_guided", "agent.env.prior=uniform"],
    "without the actor": [
        "agent=critic_guided",
        "agent.env.prior=uniform",
        f"{GUIDANCE}.actor_fraction=0",
        f"{GUIDANCE}.neighbour_fraction=1",
    ],
    "random ranking instead of critics": [
        "agent=critic_guided",
        "agent.env.prior=uniform",
        f"+{GUIDANCE}.ranking=random",
    ],
    "Gaussian steps instead of level switches": [
        "agent=critic_guided",
        "agent.env.prior=uniform",
        f"{GUIDANCE}.neighbour_fraction=0",
    ],
    "begun at the closed-form plans": ["agent=critic_guided", "agent.env.prior=closed_form"],
    "evolution": ["agent=evolution", "agent.start=uniform"],
    "evolution, begun at the closed-form plans": ["agent=evolution", "agent.start=closed_form"],
}
HALF = "found after half"


def main() -> None:
    """Searches what is asked for and writes ablation.json and the README's table."""
    parser = argparse.ArgumentParser(prog="experiments/ablation/run", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=100)
    arguments = parser.parse_args()
    cells, rows = [Ready(cell) for cell in CELLS], []
    for name, overrides in VARIANTS.items():
        settings = composed(*overrides)
        runs = [_run(cell, settings, arguments.evaluations, seed) for cell in cells for seed in range(arguments.seeds)]
        rows.append({"variant": name, "overrides": list(overrides), **_summary(runs)})
        print(rows[-1], flush=True)
    record = {"seeds": arguments.seeds, "evaluations": arguments.evaluations, "rows": rows}
    (HERE / "ablation.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    write_between(HERE / "README.md", _markdown(record) + "\n", name="ablation")


def _run(cell: Ready, settings: dict[str, Any], evaluations: int, seed: int) -> dict[str, float]:
    """Regrets of one search, where 0 is the table's best plan and 1 the uniform one."""
    assert cell.bounds is not None
    best = cell.bounds[0]
    uniform = cell.proxy(uniform_plan(cell.problem.structure, cell.problem.projector))
    scores: list[float] = []
    own: list[float] = []

    def record(outcome: Outcome, evaluation: int, phase: str) -> None:
        regret = (best - outcome.score) / (best - uniform)
        scores.append(min([*scores[-1:], regret if outcome.feasible else np.inf]))
        if phase == POLICY:
            own.append(regret)

    with tempfile.TemporaryDirectory() as folder:
        problem = cell.problem.limited(evaluations, record=record, seed=seed, folder=Path(folder))
        instantiate_part(settings, "agent")(problem, rng=numpy_rng(seed, "search"))
    half = scores[evaluations // 2 - 1]
    return {"half": half, "end": scores[-1], "policy": min(own, default=np.nan)}


def _summary(runs: Sequence[Mapping[str, float]]) -> dict[str, float | None]:
    regrets = {name: np.array([run[name] for run in runs]) for name in ("half", "end", "policy")}
    own = regrets["policy"]
    return {
        HALF: float((regrets["half"] <= 1e-9).mean()),
        "found at the end": float((regrets["end"] <= 1e-9).mean()),
        "regret after half": float(regrets["half"].mean()),
        "regret at the end": float(regrets["end"].mean()),
        "policy's own plan, regret": None if np.isnan(own).all() else float(np.nanmean(own)),
    }


def _markdown(record: Mapping[str, Any]) -> str:
    names = [name for name in record["rows"][0] if name not in ("variant", "overrides")]
    rows = (
        [row["variant"], *("–" if row[name] is None else _written(name, row[name]) for name in names)]
        for row in record["rows"]
    )
    return "\n".join(table(("variant", *names), rows))


def _written(name: str, value: float) -> str:
    return f"{100 * value:.0f} %" if name.startswith("found") else f"{value:.3f}"
