"""Model-based searches that begin with a policy from other networks, and those that begin with nothing."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoprune.agent.bundle import load_policy, load_training, save_policy
from autoprune.evaluation.outcome import Outcome
from autoprune.exchange.policies import fetch_policy
from autoprune.prior.uniform_plan import uniform_plan
from experiments.cells import kept
from experiments.ladder.stages import Cell
from experiments.policies.runs import CELLS, CELLS_KEPT, fresh, searched

EVALUATIONS = 150  # single-group curves included
NEAR = 0.05  # of the way from the table's best plan to the uniform one
POLICY, SHUFFLED = "shipped", "shuffled"
MODEL = ("agent=model_based",)
VARIANTS: Mapping[str, tuple[Sequence[str], str | None]] = {
    "from uniform": ((*MODEL, "agent.env.prior=uniform"), None),
    "from uniform, with the policy": ((*MODEL, "agent.env.prior=uniform"), POLICY),
    "from uniform, with shuffled parameters": ((*MODEL, "agent.env.prior=uniform"), SHUFFLED),
    "from the sensitivity plan": ((*MODEL, "agent.env.prior=sensitivity"), None),
    "from the closed form": (MODEL, None),
    "from the closed form, with the policy": (MODEL, POLICY),
    "from the closed form, with shuffled parameters": (MODEL, SHUFFLED),
}


def keep(seed: int) -> None:
    """All searches from one seed are kept.

    Args:
        seed: Of the searches, and of the shuffling.
    """
    for variant, (overrides, policy) in VARIANTS.items():
        for cell in CELLS:
            kept(CELLS_KEPT, _name(cell, variant, seed), partial(_run, cell, overrides, policy, seed))


def _name(cell: Cell, variant: str, seed: int) -> str:
    words = "".join(letter if letter.isalnum() else "_" for letter in f"{cell.task} {cell.budget} {variant}")
    return f"few_shot_{words}_{seed}"


def _run(cell: Cell, overrides: Sequence[str], policy: str | None, seed: int) -> dict[str, Any]:
    """After how many evaluations, with and without curves, a plan was met that is as good as NEAR; None for never."""
    at = fresh(cell)
    assert at.bounds is not None
    best, uniform = at.bounds[0], at.proxy(uniform_plan(at.problem.structure, at.problem.projector))
    curves, met, paid = [0], list[tuple[int, int]](), [0]

    def record(outcome: Outcome, evaluation: int, phase: str) -> None:
        curves[0] += phase == "curves"
        paid[0] = evaluation
        if not met and outcome.feasible and outcome.whole and (best - outcome.score) / (best - uniform) <= NEAR:
            met.append((evaluation, evaluation - curves[0]))

    with tempfile.TemporaryDirectory() as folder:
        chosen = _shuffled(Path(folder), seed) if policy == SHUFFLED else policy
        given = [*overrides, *([] if chosen is None else [f"policy={chosen}"])]
        searched(at.problem, given, seed, record, EVALUATIONS)
    return {"with_curves": met[0][0] if met else None, "without": met[0][1] if met else None, "evaluations": paid[0]}


def _shuffled(folder: Path, seed: int) -> str:
    """The shipped policy with the entries of each of its weights in another order: nothing that it learned is left."""
    source = fetch_policy(POLICY)
    policy, generator = load_policy(source), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.network.parameters():
            order = torch.randperm(weight.numel(), generator=generator)
            weight.copy_(weight.flatten()[order].reshape(weight.shape))
    save_policy(policy, folder, training=load_training(source))
    return str(folder)


def rows() -> list[dict[str, Any]]:
    """Returns for each variant the mean over cells of the medians over seeds; never counts as EVALUATIONS + 1."""
    answer = []
    for variant in VARIANTS:
        cells = [
            [
                json.loads(path.read_text())
                for path in sorted(CELLS_KEPT.glob(f"{_name(cell, variant, 0)[:-1]}[0-9]*.json"))
            ]
            for cell in CELLS
        ]
        if not all(cells):
            continue
        row: dict[str, Any] = {"variant": variant, "runs": [len(cell) for cell in cells]}
        for count in ("without", "with_curves"):
            medians = [float(np.median([run[count] or EVALUATIONS + 1 for run in cell])) for cell in cells]
            row |= {count: float(np.mean(medians)), f"{count}_cells": medians}
        answer.append(row | {"never": sum(run["without"] is None for cell in cells for run in cell)})
    return answer


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the README's table.

    Args:
        rows: As `rows` returns them.
    """
    if not rows:
        return "None was run yet."
    heads = ("model_based", "evaluations", "in the cells", "with the curves", "never", "runs in the cells")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = ", ".join(f"{median:g}" for median in row["without_cells"])
        values = (f"{row['without']:.1f}", cells, f"{row['with_curves']:.1f}", str(row["never"]))
        lines.append(f"| {row['variant']} | {' | '.join(values)} | {', '.join(map(str, row['runs']))} |")
    return "\n".join(lines)
