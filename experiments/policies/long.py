"""Searches of 300 evaluations on the three Fashion networks: the default beside evolution, from both starts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autoprune.statistics import Estimate
from experiments.ladder.stages import Cell
from experiments.policies.runs import kept_run, runs_of

NETWORKS = tuple(Cell(f"fashion_{name}", "macs:0.3") for name in ("plain20", "resnet20", "mobilenet"))
EVALUATIONS = 300
DEFAULT, CONTROL, FORMER = "model_based", "evolution", "evolution, from uniform"
RESAMPLES = 5000
Row = dict[str, Any]


def keep(seed: int) -> None:
    """All searches from one seed are kept.

    Args:
        seed: Of the searches.
    """
    for cell in NETWORKS:
        for variant in (DEFAULT, CONTROL, FORMER):
            kept_run(cell, variant, seed, EVALUATIONS)


def rows() -> list[Row]:
    """Returns a row for each network that has runs of all three searches, and one for all of these together.

    Scores are of KL divergences: 0 is the uniform plan, 1 the best plan that any of the searches met on the network.
    """
    measured = []
    for cell in NETWORKS:
        runs = {name: runs_of(cell, name, EVALUATIONS) for name in (DEFAULT, CONTROL, FORMER)}
        if all(runs.values()):
            measured.append(_network(cell, runs))
    if measured:
        measured.append({"network": "all", **{key: [x for row in measured for x in row[key]] for key in _LISTS}})
    return [{**row, **_summary(row)} for row in measured]


_LISTS = ("policy", "default", "control", "former", "difference", "reached")


def _network(cell: Cell, runs: Mapping[str, Mapping[int, Row]]) -> Row:
    best = min(run["curve"][-1] for each in runs.values() for run in each.values())

    def score(regret: float) -> float:
        return float(np.expm1(regret) / np.expm1(best))

    last = {name: {seed: score(run["curve"][-1]) for seed, run in each.items()} for name, each in runs.items()}
    level = np.mean([run["curve"][-1] for run in runs[FORMER].values()])
    curves = [np.array(run["curve"]) for run in runs[DEFAULT].values()]
    both = sorted(last[DEFAULT].keys() & last[CONTROL].keys())
    return {
        "network": cell.task,
        "policy": [score(run["policy"]) for run in runs[DEFAULT].values()],
        "default": list(last[DEFAULT].values()),
        "control": list(last[CONTROL].values()),
        "former": list(last[FORMER].values()),
        "difference": [last[DEFAULT][seed] - last[CONTROL][seed] for seed in both],
        "reached": [int(np.argmax(curve <= level)) + 1 if curve[-1] <= level else None for curve in curves],
    }


def _summary(row: Mapping[str, Any]) -> Row:
    differences = np.array(row["difference"])
    drawn = np.random.default_rng(0).choice(differences, size=(RESAMPLES, len(differences))).mean(axis=1)
    interval = Estimate.of(float(differences.mean()), drawn)
    return {
        "interval": [interval.low, interval.high] if len(differences) > 2 else None,
        "median_reached": float(np.median([EVALUATIONS + 1 if at is None else at for at in row["reached"]])),
    }


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the README's table.

    Args:
        rows: As `rows` returns them.
    """
    if not rows:
        return "None was run yet."
    heads = ["network", "policy's own plan", "`model_based`", "evolution", "evolution from uniform"]
    heads += ["`model_based` − evolution", "evaluations to evolution from uniform", "runs"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        values = [f"{np.mean(row[key]):.3f}" for key in ("policy", "default", "control", "former")]
        interval = "" if row["interval"] is None else " [{:+.3f}, {:+.3f}]".format(*row["interval"])
        values += [f"{np.mean(row['difference']):+.3f}{interval}", f"{row['median_reached']:.0f}"]
        lines.append(f"| {' | '.join([row['network'], *values, str(len(row['policy']))])} |")
    return "\n".join(lines)
