"""Plans that were the best of a search when they came, and what each is worth on samples that no reward has seen."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from autoprune.evaluation.outcome import Metrics, Outcome, joined
from autoprune.plan import PruningPlan
from autoprune.problem.prepare import Prepared

MOST = 24  # incumbents that are judged again


@dataclass(frozen=True, slots=True)
class Incumbent:
    """An outcome that was the best so far. seconds: of judging plans up to it; agent_seconds: of everything else."""

    outcome: Outcome
    evaluation: int
    seconds: float
    agent_seconds: float


def spaced(incumbents: Sequence[Incumbent], *, most: int = MOST) -> list[Incumbent]:
    """At most so many of them, by ascending evaluation, the last always: those that stood at log-spaced evaluations."""
    if not incumbents:
        return []
    evaluations = np.array([incumbent.evaluation for incumbent in incumbents])
    asked = np.round(np.geomspace(evaluations[0], evaluations[-1], most), 6)
    return [incumbents[i] for i in np.unique(np.searchsorted(evaluations, asked, side="right") - 1)]


def held_out_metrics(prepared: Prepared, plans: Sequence[PruningPlan]) -> list[Metrics | None]:
    """Each plan judged as the search judges, on as many held-out samples, or all where there are fewer.

    None for a plan whose outputs on them are not finite.
    """
    samples = prepared.held_out[: len(prepared.candidates.proxy)]
    settings = {name: prepared.measured[name] for name in ("precision", "batch_size")}
    settings["batch_size"] = min(settings["batch_size"], len(samples))
    evaluator = dataclasses.replace(prepared.candidates, proxy=samples).evaluator(**settings)
    batches = -(-len(samples) // settings["batch_size"])
    found: list[Metrics | None] = []
    for plan in plans:
        try:
            found.append(joined(evaluator.judge(plan.kept, 0, batches)).metrics)
        except FloatingPointError:
            found.append(None)
    return found


def describe_anytime(
    prepared: Prepared, incumbents: Sequence[Incumbent], references: Mapping[str, PruningPlan]
) -> dict[str, Any]:
    """`anytime` of result.json: the incumbents, and the references' scores, which are judged alike."""
    chosen = spaced(incumbents)
    judged = held_out_metrics(prepared, [incumbent.outcome.plan for incumbent in chosen] + list(references.values()))
    scores = [None if metrics is None else prepared.score(metrics) for metrics in judged]
    return {
        "samples": min(len(prepared.candidates.proxy), len(prepared.held_out)),
        "incumbents": [
            {
                "evaluation": incumbent.evaluation,
                "score": incumbent.outcome.score,
                "held_out": scores[place],
                "metrics": None if (metrics := judged[place]) is None else asdict(metrics),
                "seconds": incumbent.seconds,
                "agent_seconds": incumbent.agent_seconds,
            }
            for place, incumbent in enumerate(chosen)
        ],
        "references": dict(zip(references, scores[len(chosen) :], strict=True)),
    }
