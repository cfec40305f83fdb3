"""The rule by which the default agent is decided, held against the runs that are kept."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from experiments.ladder.stages import Cell
from experiments.policies.runs import AT, CELLS, LIVE_AT, LIVE_CELLS, runs_of

THRESHOLDS = Path(__file__).resolve().parent / "thresholds.yaml"
Row = dict[str, Any]


def rows(evaluations: int) -> list[Row]:
    """Returns for each part of the rule the value, what it may be at most, and whether it holds; None: no runs yet.

    Args:
        evaluations: Of each search on a table.
    """
    rule = yaml.safe_load(THRESHOLDS.read_text())["default_rule"]
    tables, live = rule["tables"], rule["live"]
    fifty = AT.index(50)

    def after_50(other: str) -> float | None:
        return _tables(evaluations, "model_based, from uniform", other, lambda run: run["regrets"][fifty])

    def against_evolution(value: Callable[[Row], float]) -> float | None:
        return _over_live(lambda mine, evolution: value(mine) - evolution["regrets"][-1], np.mean)

    parts: Sequence[tuple[str, float | None, float]] = (
        *(
            (f"tables: own plan, {start}", _tables(evaluations, name, None, _own), tables["policy_regret"])
            for name, start in (("model_based", "closed form"), ("model_based, from uniform", "uniform"))
        ),
        (
            "tables: after 50, less evolution",
            after_50("evolution, from uniform"),
            tables["after_50_less_evolution"],
        ),
        (
            "tables: after 50, less critic_guided",
            after_50("critic_guided, from uniform"),
            tables["after_50_less_critic_guided"],
        ),
        (
            "networks: best plan, less evolution",
            against_evolution(lambda run: run["regrets"][-1]),
            live["best_less_evolution"],
        ),
        (
            "networks: own plan less the start, worst run",
            _over_live(lambda mine, _: mine["policy"] - mine["start"], max),
            live["policy_less_start"],
        ),
        (
            "networks: own plan less evolution's best",
            against_evolution(_own),
            live["policy_less_best_of_evolution"],
        ),
    )
    return [
        {"part": name, "value": value, "most": most, "holds": None if value is None else value <= most + 1e-12}
        for name, value, most in parts
    ]


def _own(run: Row) -> float:
    return float(run["policy"])


def _tables(evaluations: int, variant: str, other: str | None, value: Callable[[Row], float]) -> float | None:
    """The mean over cells of the mean over seeds; with another variant the difference, on the seeds of both."""
    means = []
    for cell in CELLS:
        mine = runs_of(cell, variant, evaluations)
        theirs = mine if other is None else runs_of(cell, other, evaluations)
        seeds = mine.keys() & theirs.keys()
        if not seeds:
            return None
        means.append(np.mean([value(mine[s]) - (0 if other is None else value(theirs[s])) for s in seeds]))
    return float(np.mean(means))


def _over_live(value: Callable[[Row, Row], float], joined: Callable[[Sequence[float]], Any]) -> float | None:
    """Of pairs of runs of one seed, over all cells; None where a cell has none."""
    values: list[float] = []
    for cell in LIVE_CELLS:
        pairs = live_pairs(cell)
        if not pairs:
            return None
        values += [value(mine, evolution) for mine, evolution in pairs.values()]
    return float(joined(values))


def live_pairs(cell: Cell) -> Mapping[int, tuple[Row, Row]]:
    """Returns the runs of model_based and evolution from each seed that has both.

    Args:
        cell: Of a network that is evaluated.
    """
    mine, theirs = (runs_of(cell, name, LIVE_AT[-1]) for name in ("model_based", "evolution"))
    return {seed: (mine[seed], theirs[seed]) for seed in sorted(mine.keys() & theirs.keys())}


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the README's table.

    Args:
        rows: As `rows` returns them.
    """
    lines = ["| part of the rule | measured | at most | holds |", "|---|---|---|---|"]
    for row in rows:
        value = "–" if row["value"] is None else f"{row['value']:+.4f}"
        verdict = {None: "not run", True: "yes", False: "**no**"}[row["holds"]]
        lines.append(f"| {row['part']} | {value} | {row['most']:g} | {verdict} |")
    return "\n".join(lines)
