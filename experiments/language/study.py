"""Criteria, allocations and sparsities of single weights, on two texts that nothing else has read."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.cost.budget import parse_budget
from autoprune.problem.problem import Problem
from experiments.language.searched import ready
from experiments.language.weights import DENSE, TASK, judged
from experiments.readme import table as markdown_table

CRITERIA: Mapping[str, tuple[str, ...]] = {
    "wanda": ("importance=wanda",),
    "magnitude": ("importance=l1",),
    "sparse_gpt": ("importance=sparse_gpt", "repair=sparse_gpt"),
}
BUDGETS = ("weights:0.5", "weights:0.3", "weights:0.7")  # what stays; those that decide something first
ALLOCATIONS = {"uniform": 1, "owl": 1, "ramp": 10, "evolution": 40}  # agent → evaluations
CHEAP = 10  # evaluations
Cell = tuple[str, str, str]  # criterion, budget, allocation


def cells() -> list[Cell]:
    """Cheap allocations of all first, so that what is cut off is a table all the same.

    Those of a criterion follow each other, as they share its preparation.
    """
    dense = [(next(iter(CRITERIA)), BUDGETS[0], DENSE)]
    cheap = [allocation for allocation, evaluations in ALLOCATIONS.items() if evaluations <= CHEAP]
    dear = [allocation for allocation in ALLOCATIONS if allocation not in cheap]
    return dense + [(c, b, a) for allocations in (cheap, dear) for c in CRITERIA for a in allocations for b in BUDGETS]


def cell(criterion: str, budget: str, allocation: str) -> dict[str, Any]:
    """The perplexities, on held-out texts, of the plan that the allocation makes of the criterion's scores."""
    problem = _prepared(criterion)
    problem = problem.under(parse_budget(budget, problem.costs, problem.structure))
    made = judged(problem, allocation, ALLOCATIONS, seed=0)
    return {"criterion": criterion, "budget": budget, "allocation": allocation, **made}


@functools.lru_cache(maxsize=1)  # places of all single weights take as much memory as the weights
def _prepared(criterion: str) -> Problem:
    return ready.__wrapped__((*TASK, *CRITERIA[criterion], f"budget={BUDGETS[0]}"))


def table(made: Sequence[Mapping[str, Any]]) -> list[str]:
    """A row for each criterion, budget and text; a dash for what was not made yet."""
    values = {(cell["criterion"], cell["budget"], cell["allocation"]): cell["perplexity"] for cell in made}
    dense: Mapping[str, Any] = next((of for (_, _, allocation), of in values.items() if allocation == DENSE), {})
    texts = list(dict.fromkeys(text for of in values.values() for text in of))
    rows = []
    for criterion in CRITERIA:
        for budget in BUDGETS:
            for text in texts:
                own = [values.get((criterion, budget, allocation), {}).get(text) for allocation in ALLOCATIONS]
                if any(value is not None for value in own):
                    shown = ["–" if value is None else f"{value:.1f}" for value in (dense.get(text), *own)]
                    rows.append([criterion, f"`{budget}`", text, *shown])
    return list(markdown_table(("criterion", "of the weights stay", "text", DENSE, *ALLOCATIONS), rows))
