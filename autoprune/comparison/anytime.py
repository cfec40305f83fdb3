"""How good the plan was that each agent would have handed out, against evaluations and against seconds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autoprune.comparison.comparability import Cell, Labelled
from autoprune.comparison.run_summary import UNIFORM, Anytime
from autoprune.comparison.score_scale import Scale
from autoprune.comparison.statistics import QUANTILES, Floats, iqm, resampled_iqms
from autoprune.seeding import numpy_rng

POINTS, RESAMPLES = 36, 500
Json = dict[str, Any]


def anytime(labelled: Labelled, *, evaluations: int) -> Json:
    """Curves over evaluations, of all tasks together and of each; over seconds of each only, as no second is alike.

    Only agents all of whose trials have a curve are in it. The scale is that of the curves' own scores, which are
    judged on fewer samples than the plans that are handed out.
    """
    known = {
        name: cells
        for name, cells in labelled.items()
        if cells and all(trial.anytime is not None for trials in cells.values() for trial in trials)
    }
    found = {cell: _scale(cell, known) for cells in known.values() for cell in cells}
    scales = {cell: scale for cell, scale in found.items() if scale is not None}
    counted = np.unique(np.round(np.geomspace(1, evaluations, POINTS))).astype(np.float64)
    return {
        "evaluations": _together(known, scales, counted),
        "cells": [
            {
                "cell": list(cell),
                "evaluations": _lines(_of_cell(known, cell), scale, counted, by_seconds=False),
                "seconds": _lines(_of_cell(known, cell), scale, _clock(_of_cell(known, cell)), by_seconds=True),
            }
            for cell, scale in sorted(scales.items())
        ],
    }


def stepped(curve: Anytime, grid: Floats, *, by_seconds: bool) -> Floats:
    """[grid]: the held-out score of the incumbent there; NaN before the first one."""
    entries = curve.incumbents
    x = np.array([e.seconds + e.agent_seconds if by_seconds else e.evaluation for e in entries], np.float64)
    scores = np.array([np.nan, *(entry.held_out for entry in entries)])
    return scores[np.searchsorted(np.maximum.accumulate(x), grid, side="right")]


def _scale(cell: Cell, labelled: Labelled) -> Scale | None:
    """From the curves' last scores; None where uniform is not among the references, or nothing is better."""
    curves = [t.anytime for cells in labelled.values() for t in cells.get(cell, ()) if t.anytime is not None]
    uniform = [curve.references[UNIFORM] for curve in curves if UNIFORM in curve.references]
    if not uniform:
        return None
    last = [curve.incumbents[-1].held_out for curve in curves]
    best = max([*last, *(score for curve in curves for score in curve.references.values())])
    scale = Scale(float(np.median(uniform)), best, "the best of them")
    return None if scale.flat else scale


def _of_cell(labelled: Labelled, cell: Cell) -> dict[str, list[Anytime]]:
    found = {n: [t.anytime for t in cells[cell] if t.anytime] for n, cells in labelled.items() if cell in cells}
    return {name: curves for name, curves in found.items() if curves}


def _together(labelled: Labelled, scales: Mapping[Cell, Scale], grid: Floats) -> Json:
    lines = {}
    for name, cells in labelled.items():
        strata = [
            scales[cell](np.array([stepped(t.anytime, grid, by_seconds=False) for t in trials if t.anytime]))
            for cell, trials in cells.items()
            if cell in scales
        ]
        if strata:
            lines[name] = _line(strata, rng=numpy_rng(0, f"comparison/anytime/{name}"))
    return {"grid": grid, "agents": lines}


def _lines(curves: Mapping[str, Sequence[Anytime]], scale: Scale, grid: Floats, *, by_seconds: bool) -> Json:
    lines = {}
    for name, ours in curves.items():
        scores = scale(np.array([stepped(curve, grid, by_seconds=by_seconds) for curve in ours]))
        lines[name] = _line([scores], rng=numpy_rng(0, f"comparison/anytime/{name}"))
    return {"grid": grid, "agents": lines}


def _line(strata: Sequence[Floats], *, rng: np.random.Generator) -> Json:
    """strata: [seeds, grid] each. The IQM with its interval, NaN where not every trial has a plan yet."""
    value = iqm(np.concatenate(strata).T)
    low, high = np.quantile(resampled_iqms(strata, rng=rng, resamples=RESAMPLES), QUANTILES, axis=0)
    return {"iqm": value, "low": np.minimum(low, value), "high": np.maximum(high, value)}


def _clock(curves: Mapping[str, Sequence[Anytime]]) -> Floats:
    """Seconds from the first plan of any to the last one of all, log-spaced."""
    entries = [entry for ours in curves.values() for curve in ours for entry in curve.incumbents]
    seconds = np.array([entry.seconds + entry.agent_seconds for entry in entries])
    first = max(float(seconds.min()), 1e-6)
    return np.geomspace(first, max(float(seconds.max()), first * 1.01), POINTS)
