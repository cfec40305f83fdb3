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
from autoprune.prior.closed_form_plan import MOST_PLANS
from autoprune.prior.starts import prior_of
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
LIVE_CELLS = tuple(
    Cell(task, budget) for budget in ("macs:0.3", "macs:0.15") for task in ("fashion_plain20", "fashion_resnet20")
)
FIRST_SEED = 200  # nothing was developed with it or a later one
LAYERWISE = ("agent.env.mode=layerwise", "agent.env.observation=groups")
VARIANTS: Mapping[str, Sequence[str]] = {
    "model_based": ["agent=model_based"],
    "no policy: bayesian": ["agent=bayesian"],
    "no model: ppo": ["agent=ppo"],
    "critic_guided": ["agent=critic_guided"],
    "evolution": ["agent=evolution"],
    "random_around": ["agent=random_around"],
    "td3": ["agent=td3"],
    "closed_form": ["agent=closed_form"],
}
FROM_UNIFORM: Mapping[str, Sequence[str]] = {
    "model_based, from uniform": ["agent=model_based", "agent.env.prior=uniform"],
    "its policy layer by layer": ["agent=model_based", "agent.env.prior=uniform", *LAYERWISE],
    "random ranking": ["agent=model_based", "agent.env.prior=uniform", "agent.imagination.ranking=random"],
    "no self-imitation": ["agent=model_based", "agent.env.prior=uniform", "agent.imagination.imitation=0"],
    "no policy: bayesian, from uniform": ["agent=bayesian", "agent.start=uniform"],
    "no model: ppo, from uniform": ["agent=ppo", "agent.env.prior=uniform"],
    "critic_guided, from uniform": ["agent=critic_guided", "agent.env.prior=uniform"],
    "evolution, from uniform": ["agent=evolution", "agent.start=uniform"],
    "random_around, from uniform": ["agent=random_around", "agent.start=uniform"],
    "td3, from uniform": ["agent=td3", "agent.env.prior=uniform"],
}
ALL = {**VARIANTS, **FROM_UNIFORM}
LIVE = ("model_based", "evolution")
EVERY_SEED = ("model_based, from uniform", "evolution, from uniform", "no model: ppo, from uniform")
FEWEST = 2  # seeds of all others; three cells are solved by the closed-form start, where every seed says the same
OPEN_CELL = CELLS[0]  # whose optimum is none of the closed-form plans
AT = (5, 20, 50, 100)  # evaluations after which the best plan's regret is shown
LIVE_AT = (20, 40, 80)


def main() -> None:
    """Searches what is asked for and not kept yet, and writes policies.json and the README's tables."""
    parser = argparse.ArgumentParser(prog="experiments/policies/run", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=100)
    parser.add_argument(
        "--live", type=int, default=0, metavar="SEEDS", help="networks that are evaluated, beside tables"
    )
    parser.add_argument("--only", nargs="+", choices=list(ALL), default=list(ALL))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    made_by = origin("experiments/policies/run")
    for seed in range(FIRST_SEED, FIRST_SEED + asked.seeds):
        for variant in asked.only:
            for cell in CELLS:
                if variant in EVERY_SEED or seed < FIRST_SEED + FEWEST or (variant in VARIANTS and cell == OPEN_CELL):
                    _kept(cell, variant, seed, asked.evaluations)
    for seed in range(asked.live):
        for cell in LIVE_CELLS:
            for variant in LIVE:
                _kept(cell, variant, seed, LIVE_AT[-1])
    rows = [row for variant in ALL if (row := _summary(variant, asked.evaluations)) is not None]
    live = [row for cell in LIVE_CELLS for variant in LIVE if (row := _live_summary(cell, variant)) is not None]
    cells = [_word_for(cell) for cell in CELLS]
    record = {**made_by, "evaluations": asked.evaluations, "cells": cells, "rows": rows, "live": live}
    (HERE / "policies.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    write_between(HERE / "README.md", _markdown(rows) + "\n", name="policies")
    write_between(HERE / "README.md", _live_markdown(live) + "\n", name="live")


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
        lambda: _run(ready(cell), composed(*ALL[variant]), evaluations, seed),
    )
    return made


def _run(cell: Ready, settings: dict[str, Any], evaluations: int, seed: int) -> dict[str, Any]:
    """What one search met after every evaluation: regrets, where 0 is a table's best plan and 1 the uniform one.

    Without a table it is the logarithm of the KL divergence over the uniform plan's.
    """
    uniform = cell.proxy(uniform_plan(cell.problem.structure, cell.problem.projector))
    regrets: list[float] = []
    own: list[float] = []

    def regret_of(score: float) -> float:
        if cell.bounds is None:
            return float(np.log(score / uniform))
        return (cell.bounds[0] - score) / (cell.bounds[0] - uniform)

    def record(outcome: Outcome, evaluation: int, phase: str) -> None:
        regret = regret_of(outcome.score)
        regrets.append(min([*regrets[-1:], regret if outcome.feasible and outcome.whole else np.inf]))
        if phase == POLICY:
            own.append(regret)

    first = prior_of(cell.problem.limited(MOST_PLANS), start="closed_form").outcome
    start_regret = regret_of(first.score)
    start, clock = time.process_time(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        problem = cell.problem.limited(evaluations, record=record, seed=seed, folder=Path(folder))
        instantiate_part(settings, "agent")(problem, rng=numpy_rng(seed, "search"))
    seconds, waited = time.process_time() - start, problem.objective.seconds / (time.perf_counter() - clock)
    return {
        "regrets": [regrets[min(at, len(regrets)) - 1] for at in (AT if cell.bounds else LIVE_AT)],
        "start": start_regret,
        "policy": min(own) if own else None,
        "evaluations": len(regrets),
        "agent_share": round(1 - waited, 3),
        "seconds": round(seconds, 2),
    }


def _summary(variant: str, evaluations: int) -> dict[str, Any] | None:
    """The means over cells of the means over the seeds that are there, or None where a cell has none."""
    cells = [_runs_of(cell, variant, evaluations) for cell in CELLS]
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


def _runs_of(cell: Cell, variant: str, evaluations: int) -> list[dict[str, Any]]:
    """All runs that are kept, in their seeds' order."""
    paths = CELLS_KEPT.glob(f"{_path(cell, variant, 0, evaluations).removesuffix('0')}*.json")
    return [json.loads(path.read_text()) for path in sorted(paths)]


def _live_summary(cell: Cell, variant: str) -> dict[str, Any] | None:
    """The means over the seeds that are there, or None where there is none; ratios to the uniform plan's divergence."""
    runs = _runs_of(cell, variant, LIVE_AT[-1])
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
