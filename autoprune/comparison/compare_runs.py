"""What trials add up to: `comparison.json`, from which the table and the page are made."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from autoprune.comparison.agent_ranking import FEWEST, Ranking
from autoprune.comparison.anytime import anytime
from autoprune.comparison.budget_fronts import fronts
from autoprune.comparison.caveats import notices
from autoprune.comparison.comparability import (
    Cell,
    Labelled,
    check_comparable,
    labels,
    of_limit,
    unequal_terms,
    without_copies,
)
from autoprune.comparison.reading import Missing
from autoprune.comparison.run_summary import SENSITIVITY, UNIFORM, RunSummary
from autoprune.comparison.score_scale import Scale, scale_of
from autoprune.comparison.statistics import Floats, iqm, seeds_needed

Json = dict[str, Any]
DIGITS = 8  # significant ones


def compare(trials: Sequence[RunSummary], *, missing: Sequence[Missing] = (), evaluations: int | None = None) -> Json:
    """Everything that the page and the table show, as JSON values, numbers to DIGITS digits.

    Raises ValueError where there is nothing to rank, or the trials cannot be compared.
    """
    trials = of_limit(without_copies(trials), evaluations)
    names = labels(trials)
    check_comparable(trials, names)
    labelled = _with_baselines(trials, names)
    _refuse_single_seeds(labelled, agents=set(names))
    cells = sorted({trial.cell for trial in trials})
    scales = {cell: scale_of(cell, {n: ours.get(cell, ()) for n, ours in labelled.items()}) for cell in cells}
    after = Ranking("recovered", _recovered(labelled))
    said = [*notices(labelled, scales), *unequal_terms({name: labelled[name] for name in dict.fromkeys(names)})]
    found = {
        "evaluations": trials[0].evaluations,
        "trials": len(trials),
        "agents": {
            name: {"baseline": name not in names, "agent": _first(cells).agent} for name, cells in labelled.items()
        },
        "cells": [_cell(cell, scales[cell], labelled) for cell in cells],
        "notices": said,
        "missing": [asdict(job) for job in missing],
        "seeds_needed": {"one": seeds_needed(1), "all": seeds_needed(max(1, len(cells)))},
        "post_training": _regime(Ranking("post_training", _post_training(labelled, scales)), labelled),
        "recovered": _regime(after, labelled, recovered=True) if after.values else None,
        "anytime": anytime(labelled, evaluations=trials[0].evaluations),
        "plans": [_plans(cell, labelled) for cell in cells],
        "seconds": _seconds(labelled),
    }
    return {key: _rounded(value) for key, value in found.items()}


def _regime(ranking: Ranking, labelled: Labelled, *, recovered: bool = False) -> Json:
    return {
        **ranking.as_json(),
        "accuracy": _accuracies(labelled, recovered=recovered),
        "fronts": fronts(labelled, recovered=recovered),
    }


def _with_baselines(trials: Sequence[RunSummary], names: Sequence[str]) -> dict[str, dict[Cell, list[RunSummary]]]:
    """Agent → cell → trials by seed; runs' own baselines are agents too, where no agent of that name was run."""
    found: dict[str, dict[Cell, list[RunSummary]]] = defaultdict(lambda: defaultdict(list))
    for trial, name in zip(trials, names, strict=True):
        found[name][trial.cell].append(trial)
    for name in (UNIFORM, SENSITIVITY):
        if name in found:
            continue
        by_seed: dict[tuple[Cell, int], RunSummary] = {}
        for trial in trials:
            if name in trial.baselines:
                by_seed.setdefault((trial.cell, trial.seed), trial)
        for (cell, _), trial in by_seed.items():
            found[name][cell].append(
                replace(trial, agent=name, own=trial.baselines[name], anytime=None, seconds=None, agent_seconds=None)
            )
    return {
        name: {cell: sorted(ours, key=lambda trial: trial.seed) for cell, ours in sorted(cells.items())}
        for name, cells in found.items()
    }


def _refuse_single_seeds(labelled: Labelled, *, agents: set[str]) -> None:
    seeds = {name: min(len(ours) for ours in labelled[name].values()) for name in agents}
    if max(seeds.values()) < FEWEST:
        needed = seeds_needed(1)
        raise ValueError(
            f"one seed ranks nothing, and no agent has more of every task and budget ({', '.join(sorted(agents))}). "
            f"{FEWEST} seeds give an interval, {needed} can tell two agents apart at one task and "
            f"budget: autoprune search -m … 'seed=range(0,{needed})'"
        )


def _post_training(labelled: Labelled, scales: Mapping[Cell, Scale]) -> dict[str, dict[Cell, Floats]]:
    """Normalised held-out scores; a cell without a scale is left out."""
    found = {
        name: {
            cell: scales[cell](np.array([trial.own.score for trial in trials]))
            for cell, trials in cells.items()
            if not scales[cell].flat
        }
        for name, cells in labelled.items()
    }
    return {name: cells for name, cells in found.items() if cells}


def _recovered(labelled: Labelled) -> dict[str, dict[Cell, Floats]]:
    """Percentage points of test accuracy above the uniform plan that was recovered in the same run."""
    found: dict[str, dict[Cell, Floats]] = defaultdict(dict)
    for name, cells in labelled.items():
        for cell, trials in cells.items():
            points = [_points_above_uniform(trial) for trial in trials]
            known = [value for value in points if value is not None]
            if known:
                found[name][cell] = np.array(known)
    return dict(found)


def _points_above_uniform(trial: RunSummary) -> float | None:
    uniform = trial.baselines.get(UNIFORM)
    if trial.own.recovered is None or uniform is None or uniform.recovered is None:
        return None
    return 100 * (trial.own.recovered["accuracy"] - uniform.recovered["accuracy"])


def _accuracies(labelled: Labelled, *, recovered: bool) -> list[Json]:
    """Per agent and cell the IQM of the test accuracies (of the held-out ones, where no test was made)."""
    found = []
    for name, cells in labelled.items():
        for cell, trials in cells.items():
            roles = [t.own.recovered if recovered else t.own.test or t.own.held_out for t in trials]
            known = [role["accuracy"] for role in roles if role and "accuracy" in role]
            if known and (recovered or len(known) == len(trials)):
                scores = [trial.own.score for trial in trials]
                record = {"label": name, "cell": list(cell), "accuracy": float(iqm(known)), "seeds": len(known)}
                found.append(record if recovered else record | {"score": float(iqm(scores))})
    return found


def _cell(cell: Cell, scale: Scale, labelled: Labelled) -> Json:
    trials = [trial for cells in labelled.values() for trial in cells.get(cell, ())]
    return {
        "cell": list(cell),
        "zero": scale.zero,
        "one": scale.one,
        "best": scale.best,
        "flat": scale.flat,
        "score": trials[0].score_name,
        "dense_accuracy": trials[0].dense.get("accuracy"),
        "seeds": sorted({trial.seed for trial in trials}),
    }


def _plans(cell: Cell, labelled: Labelled) -> Json:
    """The median of the units that each agent's plans keep, as a fraction."""
    trials = {name: cells[cell] for name, cells in labelled.items() if cells.get(cell)}
    first = next(iter(trials.values()))[0].own.plan
    units = np.array(first.units, np.float64)
    kept = {name: np.array([trial.own.plan.kept for trial in ours]) for name, ours in trials.items()}
    return {
        "cell": list(cell),
        "groups": list(first.groups),
        "units": list(first.units),
        "agents": {name: np.median(values, axis=0) / units for name, values in kept.items()},
        "spread": {name: float((values / units).std(axis=0).mean()) for name, values in kept.items()},
    }


def _seconds(labelled: Labelled) -> list[Json]:
    """Per agent the medians over its runs of what a search takes: judging (when new), and everything else."""
    found = []
    for name, cells in labelled.items():
        trials = [trial for ours in cells.values() for trial in ours]
        timed = [
            (t.seconds, t.agent_seconds, t.spent)
            for t in trials
            if t.seconds is not None and t.agent_seconds is not None
        ]
        if timed and len(timed) == len(trials):
            judging, agent, spent = (np.array(column, np.float64) for column in zip(*timed, strict=True))
            each = float(np.median(agent / np.maximum(spent, 1)))
            found.append(
                {
                    "label": name,
                    "judging": float(np.median(judging)),
                    "agent": float(np.median(agent)),
                    "agent_each": each,
                    "spent": float(np.median(spent)),
                }
            )
    return found


def _first(cells: Mapping[Cell, Sequence[RunSummary]]) -> RunSummary:
    return next(iter(cells.values()))[0]


def _rounded(value: Any) -> Any:
    """Arrays as lists, and floats short enough to read."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
