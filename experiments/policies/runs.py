"""One search of a cell: what its best plan and its policy's own are worth after every evaluation."""

import functools
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.evaluation.metered import POLICY, MeteredObjective
from autoprune.evaluation.outcome import Outcome
from autoprune.plan import PruningPlan
from autoprune.prior.closed_form_plan import MOST_PLANS
from autoprune.prior.starts import prior_of
from autoprune.prior.uniform_plan import uniform_plan
from autoprune.problem.problem import Problem
from autoprune.seeding import numpy_rng
from experiments.cells import kept
from experiments.configuration import composed, instantiate_part
from experiments.ladder.ready import Ready
from experiments.ladder.stages import Cell

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
AT = (5, 20, 50, 100)  # evaluations after which the best plan's regret is shown
LIVE_AT = (20, 40, 80)
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


class TimedObjective(MeteredObjective):
    """One that also knows how much processor time its answers took, in seconds."""

    busy = 0.0

    def evaluate(self, plans: Sequence[PruningPlan], **options: Any) -> list[Outcome]:
        start = time.process_time()
        try:
            return super().evaluate(plans, **options)
        finally:
            self.busy += time.process_time() - start


@functools.cache
def fresh(cell: Cell) -> Ready:
    """The cell made ready, once in a process; nothing is read from what other searches judged.

    A search that found its plans judged already would seem to spend all of its time on its agent.
    """
    return Ready(cell, stored=False)


def path_of(cell: Cell, variant: str, seed: int, evaluations: int) -> str:
    """Returns the name under which a search is kept."""
    words = "".join(letter if letter.isalnum() else "_" for letter in f"{cell.task} {cell.budget} {variant}")
    return f"{words}_{evaluations}_{seed}"


def kept_run(cell: Cell, variant: str, seed: int, evaluations: int) -> dict[str, Any]:
    """Returns what a search came to; it is made unless it is kept."""
    made: dict[str, Any] = kept(
        CELLS_KEPT,
        path_of(cell, variant, seed, evaluations),
        lambda: _run(fresh(cell), composed(*ALL[variant]), evaluations, seed),
    )
    return made


def runs_of(cell: Cell, variant: str, evaluations: int) -> dict[int, dict[str, Any]]:
    """Returns all runs that are kept, by their seeds."""
    stem = path_of(cell, variant, 0, evaluations).removesuffix("0")
    paths = {int(path.stem.removeprefix(stem)): path for path in CELLS_KEPT.glob(f"{stem}*.json")}
    return {seed: json.loads(paths[seed].read_text()) for seed in sorted(paths)}


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
    search = instantiate_part(settings, "agent")
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        problem = cell.problem.limited(evaluations, seed=seed, folder=Path(folder))
        objective = TimedObjective(problem.objective.uncharged, limit=evaluations, record=record)
        search(replace(problem, objective=objective), rng=numpy_rng(seed, "search"))
    seconds = time.process_time() - start
    return {
        "regrets": [regrets[min(at, len(regrets)) - 1] for at in (AT if cell.bounds else LIVE_AT)],
        "curve": regrets,
        "start": start_regret,
        "policy": min(own) if own else None,
        "evaluations": len(regrets),
        "agent_share": round(1 - objective.busy / seconds, 3),
        "seconds": round(seconds, 2),
    }


def searched(problem: Problem, overrides: Sequence[str], seed: int, record: Any, evaluations: int) -> None:
    """A search of that many evaluations has run; what it saw was recorded.

    Args:
        problem: What is searched.
        overrides: Of the command line's settings.
        seed: Of the search.
        record: Takes each outcome, its number and its phase.
        evaluations: At least 1.
    """
    with tempfile.TemporaryDirectory() as folder:
        limited = problem.limited(evaluations, seed=seed, folder=Path(folder), record=record)
        instantiate_part(composed(*overrides), "agent")(limited, rng=numpy_rng(seed, "search"))
