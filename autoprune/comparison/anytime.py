"""How good the plan was that each agent would have handed out, against evaluations and against seconds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autoprune.comparison.comparability import Labelled
from autoprune.comparison.run_summary import UNIFORM, AnytimeCurve
from autoprune.comparison.score_scale import Scale
from autoprune.seeding import numpy_rng
from autoprune.statistics import QUANTILES, Floats, iqm, resampled_iqms

POINTS, RESAMPLES = 36, 500
Parts = Sequence[tuple[Scale, Sequence[AnytimeCurve]]]  # of one agent: a scale and a curve per seed, for each cell
Json = dict[str, Any]


def anytime(labelled: Labelled, *, evaluations: int) -> Json:
    """Curves over evaluations, of all tasks together and of each; over seconds of each only, as no second is alike.

    Only agents all of whose runs have a curve are in it. The scale is that of the curves' own scores, which are judged
    on fewer samples than the plans that are handed out.

    Args:
        labelled: Agent's label → its runs.
        evaluations: That every search was given: where curves over evaluations end.
    """
    curves = {
        name: {cell: [run.anytime for run in runs if run.anytime] for cell, runs in cells.items()}
        for name, cells in labelled.items()
        if all(run.anytime for runs in cells.values() for run in runs)
    }
    parts = []
    for cell in sorted({cell for cells in curves.values() for cell in cells}):
        ours = {name: cells[cell] for name, cells in curves.items() if cells.get(cell)}
        scale = _scale([curve for of_agent in ours.values() for curve in of_agent])
        if scale is not None:
            parts.append((cell, {name: [(scale, of_agent)] for name, of_agent in ours.items()}))
    grid = np.unique(np.round(np.geomspace(1, evaluations, POINTS))).astype(np.float64)
    together = {name: [part for _, agents in parts for part in agents.get(name, ())] for name in curves}
    return {
        "evaluations": _lines(together, grid, by_seconds=False),
        "cells": [
            {
                "cell": list(cell),
                "evaluations": _lines(agents, grid, by_seconds=False),
                "seconds": _lines(agents, _clock(agents), by_seconds=True),
            }
            for cell, agents in parts
        ],
    }


def stepped(curve: AnytimeCurve, grid: Floats, *, by_seconds: bool) -> Floats:
    """[grid]: the held-out score of the incumbent there; NaN before the first one.

    Args:
        curve: The best score after each evaluation.
        grid: Where the curve is read.
        by_seconds: Whether curves are over time, not over evaluations.
    """
    entries = curve.incumbents
    x = np.array([e.seconds + e.agent_seconds if by_seconds else e.evaluation for e in entries], np.float64)
    scores = np.array([np.nan, *(entry.held_out for entry in entries)])
    return scores[np.searchsorted(np.maximum.accumulate(x), grid, side="right")]


def _scale(curves: Sequence[AnytimeCurve]) -> Scale | None:
    """From the curves' last scores; None where uniform is not among the references, or nothing is better."""
    uniform = [curve.references[UNIFORM] for curve in curves if UNIFORM in curve.references]
    if not uniform:
        return None
    best = max(score for c in curves for score in (c.incumbents[-1].held_out, *c.references.values()))
    scale = Scale(float(np.median(uniform)), best, "the best of them")
    return None if scale.flat else scale


def _lines(agents: Mapping[str, Parts], grid: Floats, *, by_seconds: bool) -> Json:
    """Per agent the IQM at every point of the grid with its interval, NaN where not every run has a plan yet."""
    lines = {}
    for name, parts in agents.items():
        if not parts:
            continue
        strata = [scale(np.array([stepped(c, grid, by_seconds=by_seconds) for c in curves])) for scale, curves in parts]
        value, rng = iqm(np.concatenate(strata).T), numpy_rng(0, f"comparison/anytime/{name}")
        low, high = np.quantile(resampled_iqms(strata, rng=rng, resamples=RESAMPLES), QUANTILES, axis=0)
        lines[name] = {"iqm": value, "low": np.minimum(low, value), "high": np.maximum(high, value)}
    return {"grid": grid, "agents": lines}


def _clock(agents: Mapping[str, Parts]) -> Floats:
    """Seconds from the first plan of any to the last one of all, log-spaced."""
    curves = [curve for parts in agents.values() for _, ours in parts for curve in ours]
    seconds = [entry.seconds + entry.agent_seconds for curve in curves for entry in curve.incumbents]
    first = max(min(seconds), 1e-6)
    return np.geomspace(first, max(*seconds, first * 1.01), POINTS)
