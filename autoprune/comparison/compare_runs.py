"""What runs add up to: `comparison.json`, from which the table and the page are made."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import numpy as np

from autoprune.comparison.agent_ranking import Ranking, Scores
from autoprune.comparison.anytime import anytime
from autoprune.comparison.budget_fronts import fronts
from autoprune.comparison.by_policy import rank_policies, uniform_caveats, with_policies
from autoprune.comparison.caveats import FEWEST, caveats, unequal_terms
from autoprune.comparison.comparability import Cell, Labelled, check_comparable, labels, of_limit, without_copies
from autoprune.comparison.reading import Missing
from autoprune.comparison.run_summary import DETERMINISTIC, SENSITIVITY, UNIFORM, RunSummary
from autoprune.comparison.score_scale import Scale, scale_of
from autoprune.statistics import Floats, iqm, seeds_needed

By = Literal["both", "search", "policy"]
Json = dict[str, Any]
DIGITS = 8  # significant ones


def compare(
    runs: Sequence[RunSummary], *, missing: Sequence[Missing] = (), evaluations: int | None = None, by: By = "both"
) -> Json:
    """Everything that the page and the table show, as JSON values, numbers to DIGITS digits.

    Args:
        runs: In any order.
        missing: Jobs without a result, which are listed.
        evaluations: Only runs that were given so many; None: all, which were given as many.
        by: Ranks the plans that searches met, those that learned policies propose, or the former beside the latter.

    Raises:
        ValueError: There is nothing to rank, or the runs cannot be compared.
    """
    runs, left_out = of_limit(without_copies(runs), evaluations), list[str]()
    if by == "policy":
        runs, left_out = with_policies(runs)
    names = labels(runs)
    check_comparable(runs, names)
    labelled = _with_baselines(runs, names)
    agents = {
        name: {"baseline": name not in names, "agent": next(iter(cells.values()))[0].agent}
        for name, cells in labelled.items()
    }
    deterministic = {name for name, entry in agents.items() if entry["agent"] in DETERMINISTIC}
    _refuse_single_seeds({name: labelled[name] for name in dict.fromkeys(names)}, deterministic)
    cells = sorted({run.cell for run in runs})
    scales = {cell: scale_of(cell, {n: ours.get(cell, ()) for n, ours in labelled.items()}) for cell in cells}
    after = _recovered(labelled)
    result = {
        "by": by,
        "evaluations": runs[0].evaluations,
        "runs": len(runs),
        "agents": agents,
        "cells": [_cell(cell, scales[cell], labelled) for cell in cells],
        "caveats": [
            *left_out,
            *([] if by == "search" else uniform_caveats(runs, names)),
            *caveats(labelled, scales, deterministic=deterministic),
            *unequal_terms({name: labelled[name] for name in dict.fromkeys(names)}),
        ],
        "missing": [asdict(job) for job in missing],
        "seeds_needed": {"one": seeds_needed(1), "all": seeds_needed(max(1, len(cells)))},
        "post_training": {
            **Ranking("post_training", _post_training(labelled, scales), deterministic).as_json(),
            "accuracy": _accuracies(labelled, recovered=False),
            "fronts": fronts(labelled, recovered=False),
        },
        "policies": rank_policies(runs, names) if by == "both" else None,
        "recovered": {
            **Ranking("recovered", after, {UNIFORM}).as_json(),
            "accuracy": _accuracies(labelled, recovered=True),
            "fronts": fronts(labelled, recovered=True),
        }
        if after
        else None,
        "anytime": anytime(labelled, evaluations=runs[0].evaluations),
        "plans": [_plans(cell, labelled) for cell in cells],
        "seconds": _seconds(labelled),
    }
    return {key: _rounded(value) for key, value in result.items()}


def _with_baselines(runs: Sequence[RunSummary], names: Sequence[str]) -> dict[str, dict[Cell, list[RunSummary]]]:
    """Agent → cell → runs by seed; runs' own baselines are agents too, where no agent of that name was run."""
    labelled: dict[str, dict[Cell, dict[int, RunSummary]]] = defaultdict(lambda: defaultdict(dict))
    for run, name in zip(runs, names, strict=True):
        labelled[name][run.cell][run.seed] = run
    for name in [name for name in (UNIFORM, SENSITIVITY) if name not in labelled]:
        for run in runs:
            if name in run.baselines:
                untimed = replace(run, anytime=None, seconds=None, agent_seconds=None)
                labelled[name][run.cell].setdefault(run.seed, replace(untimed, agent=name, own=run.baselines[name]))
    return {
        name: {cell: [ours[seed] for seed in sorted(ours)] for cell, ours in sorted(cells.items())}
        for name, cells in labelled.items()
    }


def _refuse_single_seeds(labelled: Labelled, deterministic: Collection[str]) -> None:
    if all(name in deterministic for name in labelled) or any(
        min(map(len, c.values())) >= FEWEST for c in labelled.values()
    ):
        return
    needed = seeds_needed(1)
    raise ValueError(
        f"one seed ranks nothing, and no agent has more of every task and budget ({', '.join(sorted(labelled))}). "
        f"{FEWEST} seeds give an interval, {needed} can tell two agents apart at one task and "
        f"budget: autoprune search -m … 'seed=range(0,{needed})'"
    )


def _entries(labelled: Labelled) -> Iterator[tuple[str, Cell, Sequence[RunSummary]]]:
    return ((name, cell, runs) for name, cells in labelled.items() for cell, runs in cells.items())


def _post_training(labelled: Labelled, scales: Mapping[Cell, Scale]) -> Scores:
    """Normalised held-out scores; a cell without a scale is left out."""
    scores: dict[str, dict[Cell, Floats]] = defaultdict(dict)
    for name, cell, runs in _entries(labelled):
        if not scales[cell].flat:
            scores[name][cell] = scales[cell](np.array([run.own.score for run in runs]))
    return scores


def _recovered(labelled: Labelled) -> Scores:
    """Percentage points of test accuracy above the uniform plan that was recovered in the same run."""
    scores: dict[str, dict[Cell, Floats]] = defaultdict(dict)
    for name, cell, runs in _entries(labelled):
        pairs = [(run.own.recovered, run.baselines[UNIFORM].recovered) for run in runs if UNIFORM in run.baselines]
        points = [100 * (own["accuracy"] - uniform["accuracy"]) for own, uniform in pairs if own and uniform]
        if points:
            scores[name][cell] = np.array(points)
    return scores


def _accuracies(labelled: Labelled, *, recovered: bool) -> list[Json]:
    """Per agent and cell the IQM of the test accuracies (of the held-out ones, where no test was made)."""
    records = []
    for name, cell, runs in _entries(labelled):
        metrics = [run.own.recovered if recovered else run.own.test or run.own.held_out for run in runs]
        accuracies = [entry["accuracy"] for entry in metrics if entry and "accuracy" in entry]
        if accuracies and (recovered or len(accuracies) == len(runs)):
            score = {} if recovered else {"score": float(iqm([run.own.score for run in runs]))}
            record = {"label": name, "cell": list(cell), "accuracy": float(iqm(accuracies)), "seeds": len(accuracies)}
            records.append(record | score)
    return records


def _cell(cell: Cell, scale: Scale, labelled: Labelled) -> Json:
    runs = [run for cells in labelled.values() for run in cells.get(cell, ())]
    return {
        "cell": list(cell),
        **asdict(scale),
        "flat": scale.flat,
        "score": runs[0].score_name,
        "dense_accuracy": runs[0].dense.get("accuracy"),
        "seeds": sorted({run.seed for run in runs}),
    }


def _plans(cell: Cell, labelled: Labelled) -> Json:
    """The median of the units that each agent's plans keep, as a fraction."""
    plans = {name: [run.own.plan for run in cells[cell]] for name, cells in labelled.items() if cells.get(cell)}
    first = next(iter(plans.values()))[0]
    densities = {name: np.array([plan.kept for plan in ours]) / first.units for name, ours in plans.items()}
    return {
        "cell": list(cell),
        "groups": list(first.groups),
        "units": list(first.units),
        "agents": {name: np.median(values, axis=0) for name, values in densities.items()},
        "spread": {name: float(values.std(axis=0).mean()) for name, values in densities.items()},
    }


def _seconds(labelled: Labelled) -> list[Json]:
    """Per agent the medians over its runs of what a search takes: judging (when new), and everything else."""
    records = []
    for name, cells in labelled.items():
        runs = [run for ours in cells.values() for run in ours]
        judging, agent, spent = np.array([(run.seconds, run.agent_seconds, run.spent) for run in runs], np.float64).T
        if not np.isnan(judging + agent).any():
            columns = {"judging": judging, "agent": agent, "agent_each": agent / np.maximum(spent, 1), "spent": spent}
            records.append({"label": name, **{key: float(np.median(values)) for key, values in columns.items()}})
    return records


def _rounded(value: Any) -> Any:
    """Arrays as lists, and floats short enough to read."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
