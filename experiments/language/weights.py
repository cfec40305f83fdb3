"""What a search is worth where single weights go, by Wanda: whether it is ever worse than uniform, and OWL's worth."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem
from autoprune.task.language_measures import LanguageMeasures, perplexity
from experiments.language.searched import ready, searched
from experiments.readme import table as markdown_table

TASK = ("experiment=language_weights", "evaluation.proxy_samples=24", "evaluation.race={first: 0.34}")
SEEDS = {"weights:0.5": 10, "weights:0.3": 3}  # budget → of the search
EVALUATIONS = {"uniform": 1, "owl": 1, "evolution": 100}
SEARCHED = "evolution"
DENSE = "dense"


def cell(budget: str, agent: str, seed: int) -> dict[str, Any]:
    """The perplexities, on held-out texts, of the plan that the agent found."""
    problem = ready((*TASK, f"budget={budget}"))
    return {"budget": budget, "agent": agent, "seed": seed, **judged(problem, agent, EVALUATIONS, seed=seed)}


def judged(problem: Problem, agent: str, evaluations: Mapping[str, int], *, seed: int) -> dict[str, Any]:
    """What an agent, or leaving the network dense, comes to: the plan, windows that it cost, held-out perplexities."""
    plan, windows = problem.structure.dense, 0
    if agent != DENSE:
        search = searched(problem, [f"agent={agent}"], evaluations=evaluations[agent], seed=seed)
        plan, windows = search.best[-1][1], search.spent
    return {"windows": windows, "kept": list(plan.kept), "perplexity": perplexities(problem, plan)}


def perplexities(problem: Problem, plan: PruningPlan) -> dict[str, float]:
    """Held-out text → the perplexity of the plan's network on it."""
    measure = problem.task.measure
    assert isinstance(measure, LanguageMeasures)
    network = problem.pruned(plan)
    with torch.inference_mode():
        return {name: perplexity(network, windows) for name, windows in measure.texts.items()}


def table(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """÷ uniform: the mean over seeds and the worst one."""
    titles = ("of the weights stay", "text", "dense", "uniform", "OWL", "searched", "÷ uniform: mean, worst")
    rows = []
    for budget in dict.fromkeys(cell["budget"] for cell in cells):
        here = [cell for cell in cells if cell["budget"] == budget]
        for text in here[0]["perplexity"]:
            of = {
                agent: np.array([cell["perplexity"][text] for cell in here if cell["agent"] == agent])
                for agent in (DENSE, *EVALUATIONS)
            }
            ratio = of[SEARCHED] / of["uniform"]
            shown = [f"{of[agent].mean():.1f}" for agent in (DENSE, *EVALUATIONS)]
            never = f"{int((ratio <= 1).sum())} of {len(ratio)} seeds"
            rows.append([f"`{budget}`", text, *shown, f"{ratio.mean():.3f}, {ratio.max():.3f}", never])
    return list(markdown_table((*titles, "never worse"), rows))
