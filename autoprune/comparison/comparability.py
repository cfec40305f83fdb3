"""On which terms trials are compared: two configurations of one agent are two, and what is not alike is not mixed."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from autoprune.comparison.run_summary import RunSummary

ACCURACY = 0.005  # how far dense accuracies of one network may be apart on different machines
Cell = tuple[str, str]  # task, budget
Labelled = Mapping[str, Mapping[Cell, Sequence[RunSummary]]]  # agent → cell → its trials, by seed


def labels(trials: Sequence[RunSummary]) -> list[str]:
    """For each trial its agent's name; with the settings that differ, where one task and budget has seen several.

    The fewest settings that tell an agent's configurations apart are named, those with the shortest names first.
    """
    found: dict[int, str] = {}
    by_agent: dict[str, list[int]] = defaultdict(list)
    for place, trial in enumerate(trials):
        by_agent[trial.agent].append(place)
    for agent, places in by_agent.items():
        keys = _telling_apart([trials[place] for place in places])
        for place in places:
            settings = trials[place].settings
            said = ", ".join(f"{_short(key)}={_shown(settings.get(key))}" for key in keys)
            found[place] = f"{agent} {said}" if said else agent
    return [found[place] for place in range(len(trials))]


def of_limit(trials: Sequence[RunSummary], limit: int | None) -> list[RunSummary]:
    """The trials that were given so many evaluations; all where limit is None and all were given as many.

    Raises ValueError where they were not, and where none is left.
    """
    limits = sorted({trial.evaluations for trial in trials})
    if not limits:
        raise ValueError("there are no complete runs to compare")
    if limit is None and len(limits) > 1:
        counts = ", ".join(f"{sum(t.evaluations == n for t in trials)} with {n}" for n in limits)
        raise ValueError(
            f"the runs were given different numbers of evaluations ({counts}); only equal ones are compared: choose "
            f"with evaluations={limits[-1]}"
        )
    if limit is not None and limit not in limits:
        raise ValueError(f"no run was given {limit} evaluations; there are {', '.join(map(str, limits))}")
    return [trial for trial in trials if limit is None or trial.evaluations == limit]


def check_comparable(trials: Sequence[RunSummary], names: Sequence[str]) -> None:
    """Raises ValueError where trials of one task are of different networks or scores, or one was made twice."""
    by_task: dict[str, list[RunSummary]] = defaultdict(list)
    for trial in trials:
        by_task[trial.task].append(trial)
    for task, ours in by_task.items():
        scores = sorted({trial.score_name for trial in ours})
        if len(scores) > 1:
            raise ValueError(
                f"the runs of {task!r} are scored by {' and '.join(scores)}, which cannot be compared; give those of "
                "one score= only"
            )
        accuracies = [trial.dense["accuracy"] for trial in ours if "accuracy" in trial.dense]
        alike = not accuracies or max(accuracies) - min(accuracies) <= ACCURACY
        if len({(trial.network, trial.own.plan.groups, trial.own.plan.units) for trial in ours}) > 1 or not alike:
            raise ValueError(
                f"the runs of {task!r} are of different data or networks (their data's hashes, their groups or the "
                "dense accuracies differ); compare those of one network at a time"
            )
    seen: set[tuple[str, str, str, int]] = set()
    for trial, name in zip(trials, names, strict=True):
        key = (name, *trial.cell, trial.seed)
        if key in seen:
            raise ValueError(
                f"there are two runs of {name} on {trial.task} at {trial.budget} from seed {trial.seed}, with "
                "different results; leave one of them out: a seed counts once"
            )
        seen.add(key)


def without_copies(trials: Iterable[RunSummary]) -> list[RunSummary]:
    """The trials, each that was given several times once."""
    kept: list[RunSummary] = []
    seen: set[str] = set()
    for trial in trials:
        text = repr(trial)
        if text not in seen:
            seen.add(text)
            kept.append(trial)
    return kept


def unequal_terms(labelled: Mapping[str, Mapping[Cell, Sequence[RunSummary]]]) -> list[str]:
    """What agents do not have in common though it is none of theirs, in sentences: recovery, repair, criterion, …"""
    values: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, cells in labelled.items():
        for (task, _), trials in cells.items():
            for trial in trials:
                for key, value in trial.settings.items():
                    if not key.startswith("agent."):
                        values[task, key][repr(value)].add(name)
    return [
        f"Not on equal terms: on {task}, {key} is "
        + " and ".join(f"{value} for {_listed(names)}" for value, names in sorted(by_value.items()))
        + "."
        for (task, key), by_value in sorted(values.items())
        if len(by_value) > 1
    ]


def _telling_apart(trials: Sequence[RunSummary]) -> list[str]:
    """Keys by which the configurations of one agent differ inside a task and budget; few of them."""
    by_cell: dict[Cell, list[RunSummary]] = defaultdict(list)
    for trial in trials:
        by_cell[trial.cell].append(trial)
    differing = {
        key
        for ours in by_cell.values()
        for key in {key for trial in ours for key in trial.settings}
        if len({repr(trial.settings.get(key)) for trial in ours}) > 1
    }
    ordered = sorted(differing, key=lambda key: (key.count("."), len(key), key))

    def parts(keys: Sequence[str]) -> int:
        """How many configurations these keys tell apart."""
        return sum(len({_values(trial, keys) for trial in ours}) for ours in by_cell.values())

    chosen: list[str] = []
    for key in ordered:
        if parts([*chosen, key]) > parts(chosen):
            chosen.append(key)
    return chosen


def _values(trial: RunSummary, keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(repr(trial.settings.get(key)) for key in keys)


def _short(key: str) -> str:
    """agent.mode → mode, recover._target_ → recover."""
    parts = [part for part in key.split(".") if part != "_target_"]
    return ".".join(parts[1:] if parts[0] == "agent" and len(parts) > 1 else parts[-2:])


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "×".join(map(str, value))
    return str(value).rpartition(".")[2] if str(value).startswith("autoprune.") else str(value)


def _listed(names: set[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered) if len(ordered) < 5 else f"{', '.join(ordered[:3])} and {len(ordered) - 3} more"
