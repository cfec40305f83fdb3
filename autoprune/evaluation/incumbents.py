"""Plans that were the best of a search when they came, and what each is worth on samples that no reward has seen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from autoprune.evaluation.candidates import Candidates
from autoprune.evaluation.judge import Score
from autoprune.evaluation.outcome import Metrics, Outcome, joined
from autoprune.plan import PruningPlan
from autoprune.task.samples import cuts
from autoprune.task.task import Role

MOST = 24  # incumbents that are judged again


@dataclass(frozen=True, slots=True)
class Incumbent:
    """An outcome that was the best so far."""

    outcome: Outcome
    """The plan's."""
    evaluation: int
    """When it was met, counted from 1."""
    seconds: float
    """Of judging plans up to it."""
    agent_seconds: float
    """Of everything else up to it."""


def spaced(incumbents: Sequence[Incumbent], *, most: int = MOST) -> list[Incumbent]:
    """At most so many of them, by ascending evaluation, the last always: those that stood at log-spaced evaluations.

    Args:
        incumbents: The search's best plans.
        most: How many of them.
    """
    if not incumbents:
        return []
    evaluations = np.array([incumbent.evaluation for incumbent in incumbents])
    asked = np.round(np.geomspace(evaluations[0], evaluations[-1], most), 6)
    return [incumbents[i] for i in np.unique(np.searchsorted(evaluations, asked, side="right") - 1)]


def held_out_metrics(
    candidates: Candidates, held_out: Role, plans: Sequence[PruningPlan], *, precision: str, batch_size: int
) -> list[Metrics | None]:
    """Each plan judged as the search judges, on as many held-out samples, or all where there are fewer.

    None for a plan whose outputs on them are not finite.

    Args:
        candidates: What makes a plan's network.
        held_out: Samples that no reward sees.
        plans: Plans to be judged.
        precision: "fp32" or "bf16".
        batch_size: Samples in one forward pass, at least 1.
    """
    samples = held_out[: len(candidates.proxy)]
    batch_size = min(batch_size, len(samples))
    evaluator = replace(candidates, proxy=samples).evaluator(precision=precision, batch_size=batch_size)
    batches = len(cuts(len(samples), batch_size)) - 1
    metrics: list[Metrics | None] = []
    for plan in plans:
        try:
            metrics.append(joined(evaluator.judge(plan.kept, 0, batches)).metrics)
        except FloatingPointError:
            metrics.append(None)
    return metrics


def describe_anytime(
    incumbents: Sequence[Incumbent],
    references: Mapping[str, PruningPlan],
    *,
    judge: Callable[[Sequence[PruningPlan]], Sequence[Metrics | None]],
    score: Score,
) -> dict[str, Any]:
    """`anytime` of result.json: the incumbents, and the references' scores, which are judged alike.

    Args:
        incumbents: The best plans of a search, by ascending evaluation.
        references: Name → a plan that the search is compared with.
        judge: Plans → how each does on held-out samples; None for one that cannot be judged.
        score: What is made of that.
    """
    chosen = spaced(incumbents)
    judged = judge([incumbent.outcome.plan for incumbent in chosen] + list(references.values()))
    scores = [None if metrics is None else score(metrics) for metrics in judged]
    return {
        "samples": max((metrics.samples for metrics in judged if metrics is not None), default=0),
        "incumbents": [
            {
                "evaluation": incumbent.evaluation,
                "score": incumbent.outcome.score,
                "held_out": held_out,
                "metrics": None if metrics is None else asdict(metrics),
                "seconds": incumbent.seconds,
                "agent_seconds": incumbent.agent_seconds,
            }
            for incumbent, metrics, held_out in zip(chosen, judged, scores, strict=False)
        ],
        "references": dict(zip(references, scores[len(chosen) :], strict=True)),
    }
