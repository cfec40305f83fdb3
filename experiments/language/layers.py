"""Layer reduction on MiniLM, as DistilBERT does it: half of the blocks go, and what is left learns from the whole."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autoprune.problem.problem import Problem
from autoprune.seeding import torch_generator
from experiments.configuration import composed, instantiate_part
from experiments.language.searched import ready, searched
from experiments.readme import table as markdown_table

TASK = ("task=minilm", "structure.prune=[blocks]", "repair=none", "budget=weights:0.5")
RECOVERY = "recover=layer_reduction"
SEEDS = 2
AGENTS = {"uniform": 1, "evolution": 20}  # agent → evaluations; 20 plans keep three of six blocks
MEASURES = ("retrieval_accuracy", "cosine_to_dense")


def cell(agent: str, seed: int) -> dict[str, Any]:
    """The plan that the agent found, and what its encoder is worth on held-out texts before and after distillation."""
    problem = ready(TASK)
    task = problem.task
    plan = searched(problem, [f"agent={agent}"], evaluations=AGENTS[agent], seed=seed).best[-1][1]
    network = problem.pruned(plan)
    before = _measured(problem, network)
    recover: Any = instantiate_part(composed(RECOVERY), "recover")
    trained = recover(
        network, task, teacher=task.model, generator=torch_generator(seed, "recover"), on_step=lambda *_: None
    )
    return {
        "agent": agent,
        "seed": seed,
        "kept": list(plan.kept),
        "dense": _measured(problem, task.model),
        "before": before,
        "after": _measured(problem, trained),
    }


def _measured(problem: Problem, network: Any) -> dict[str, float]:
    assert problem.task.measure is not None
    found = problem.task.measure(network)
    return {name: float(found[name]) for name in MEASURES}


def table(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """The mean over seeds, and the range of what depends on them."""
    titles = [f"{name.replace('_', ' ')}: {when}" for name in MEASURES for when in ("pruned", "distilled")]
    whole = [f"{cells[0]['dense'][name]:.3f}" for name in MEASURES for _ in range(2)]
    rows = [["all", "0–5", *whole, "–"]]
    for agent in AGENTS:
        own = [cell for cell in cells if cell["agent"] == agent]
        blocks = "; ".join(dict.fromkeys(", ".join(map(str, np.flatnonzero(cell["kept"]))) for cell in own))
        shown = []
        for name in MEASURES:
            for when in ("before", "after"):
                values = np.array([cell[when][name] for cell in own])
                spread = f" ({values.min():.3f}–{values.max():.3f})" if np.ptp(values) > 0 else ""
                shown.append(f"{values.mean():.3f}{spread}")
        title = "evenly spaced" if agent == "uniform" else f"searched ({agent})"
        rows.append([title, blocks, *shown, str(len(own))])
    return list(markdown_table(("blocks that stay", "of six", *titles, "seeds"), rows))
