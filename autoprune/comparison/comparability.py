"""Which runs may be compared: two configurations of one agent are two, and what is not alike is not mixed."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from autoprune.comparison.run_summary import RunSummary

ACCURACY = 0.005  # how far dense accuracies of one network may be apart on different machines
Cell = tuple[str, str]  # task, budget
Labelled = Mapping[str, Mapping[Cell, Sequence[RunSummary]]]  # agent → cell → its runs, by seed


def labels(runs: Sequence[RunSummary]) -> list[str]:
    """For each run its agent's name; with the settings that differ, where one task and budget has seen several.

    The fewest settings that tell an agent's configurations apart are named, those with the shortest names first.
    """
    keys = {agent: _distinguishing_keys([run for run in runs if run.agent == agent]) for agent in _agents(runs)}
    return [
        f"{run.agent} {', '.join(_setting(key, run.settings.get(key)) for key in keys[run.agent])}".rstrip()
        for run in runs
    ]


def of_limit(runs: Sequence[RunSummary], limit: int | None) -> list[RunSummary]:
    """The runs that were given so many evaluations; all where limit is None and all were given as many.

    Raises:
        ValueError: They were not, or none is left.

    Args:
        runs: Summaries of runs.
        limit: Evaluations that a run was given; None for whatever all were given.
    """
    limits = sorted({run.evaluations for run in runs})
    if not limits:
        raise ValueError("there are no complete runs to compare")
    if limit is None and len(limits) > 1:
        counts = ", ".join(f"{sum(run.evaluations == n for run in runs)} with {n}" for n in limits)
        raise ValueError(
            f"the runs were given different numbers of evaluations ({counts}); only equal ones are compared: choose "
            f"with evaluations={limits[-1]}"
        )
    if limit is not None and limit not in limits:
        raise ValueError(f"no run was given {limit} evaluations; there are {', '.join(map(str, limits))}")
    return [run for run in runs if limit is None or run.evaluations == limit]


def check_comparable(runs: Sequence[RunSummary], names: Sequence[str]) -> None:
    """Raises ValueError where runs of one task are of different networks or scores, or one was made twice.

    Args:
        runs: Summaries of runs.
        names: For each run its agent's label, as `labels` returns it.
    """
    for task in dict.fromkeys(run.task for run in runs):
        of_task = [run for run in runs if run.task == task]
        scores = sorted({run.score_name for run in of_task})
        if len(scores) > 1:
            raise ValueError(
                f"the runs of {task!r} are scored by {' and '.join(scores)}, which cannot be compared; give those of "
                "one score= only"
            )
        accuracies = [run.dense["accuracy"] for run in of_task if "accuracy" in run.dense]
        alike = not accuracies or max(accuracies) - min(accuracies) <= ACCURACY
        if len({(run.network, run.own.plan.groups, run.own.plan.units) for run in of_task}) > 1 or not alike:
            raise ValueError(
                f"the runs of {task!r} are of different data or networks (their data's hashes, their groups or the "
                "dense accuracies differ); compare those of one network at a time"
            )
    seen: set[tuple[str, str, str, int]] = set()
    for run, name in zip(runs, names, strict=True):
        key = (name, *run.cell, run.seed)
        if key in seen:
            raise ValueError(
                f"there are two runs of {name} on {run.task} at {run.budget} from seed {run.seed}, with "
                "different results; leave one of them out: a seed counts once"
            )
        seen.add(key)


def without_copies(runs: Iterable[RunSummary]) -> list[RunSummary]:
    """The runs, each that was given several times once."""
    return list({repr(run): run for run in runs}.values())


def _agents(runs: Iterable[RunSummary]) -> set[str]:
    return {run.agent for run in runs}


def _distinguishing_keys(runs: Sequence[RunSummary]) -> list[str]:
    """Keys by which the configurations of one agent differ inside a task and budget; few of them."""
    cells: dict[Cell, list[RunSummary]] = defaultdict(list)
    for run in runs:
        cells[run.cell].append(run)

    def configurations(keys: Sequence[str]) -> int:
        """How many these keys tell apart."""
        return sum(len({tuple(repr(run.settings.get(key)) for key in keys) for run in ours}) for ours in cells.values())

    differing = {key for run in runs for key in run.settings if configurations([key]) > len(cells)}
    chosen: list[str] = []
    for key in sorted(differing, key=lambda key: (key.count("."), len(key), key)):
        if configurations([*chosen, key]) > configurations(chosen):
            chosen.append(key)
    return chosen


def _setting(key: str, value: Any) -> str:
    """agent.mode → mode=one_shot, recover._target_ → recover=fine_tune."""
    parts = [part for part in key.split(".") if part != "_target_"]
    name = ".".join(parts[1:] if parts[0] == "agent" and len(parts) > 1 else parts[-2:])
    text = "×".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"{name}={text.rpartition('.')[2] if text.startswith('autoprune.') else text}"
