"""What a reader has to know before believing a comparison: who was not ranked, what is missing, unequal terms."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

from autoprune.comparison.comparability import Cell, Labelled
from autoprune.comparison.score_scale import Scale
from autoprune.statistics import seeds_needed

FEWEST = 2  # seeds that have an interval


def caveats(labelled: Labelled, scales: Mapping[Cell, Scale], *, deterministic: Collection[str]) -> list[str]:
    """Sentences.

    Args:
        labelled: Agent → cell → its runs.
        scales: Cell → its scale.
        deterministic: The agents of which one run is enough.
    """
    flat = [
        f"On {task} at {budget} nothing is better than the uniform plan, so there is nothing to normalise by: "
        "it is left out of the post-training ranking."
        for (task, budget), scale in scales.items()
        if scale.flat
    ]
    single = _agents_by_cells(
        labelled,
        lambda name: [c for c, runs in labelled[name].items() if len(runs) < FEWEST and name not in deterministic],
    )
    few = [
        f"{listed(names)} {'is not ranked: it has' if len(names) == 1 else 'are not ranked: they have'} one seed on "
        f"{_places(cells)}. {FEWEST} seeds give an interval, {seeds_needed(1)} can tell two agents apart there."
        for cells, names in single.items()
    ]
    absent = _agents_by_cells(labelled, lambda name: [cell for cell in scales if cell not in labelled[name]])
    lacking = [
        f"{listed(names)} {'has' if len(names) == 1 else 'have'} no complete run on {_places(cells)}: "
        + (
            "its average is over the others, and it is"
            if len(names) == 1
            else "their averages are over the others, and they are"
        )
        + " listed last."
        for cells, names in absent.items()
    ]
    return [*flat, *few, *lacking, *_partly_recovered(labelled)]


def unequal_terms(labelled: Labelled) -> list[str]:
    """What agents do not have in common though it is none of theirs, in sentences: recovery, repair, criterion, …"""
    values: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, cells in labelled.items():
        for (task, _), runs in cells.items():
            for run in runs:
                for key, value in run.settings.items():
                    if not key.startswith("agent."):
                        values[task, key][repr(value)].add(name)
    versions: dict[str, set[str]] = defaultdict(set)
    for name, cells in labelled.items():
        for run in (run for runs in cells.values() for run in runs if run.version):
            versions[run.version].add(name)
    mixed = " and ".join(
        f"{version} for {listed(sorted(names), most=4)}" for version, names in sorted(versions.items())
    )
    by_version = (
        [f"Not on equal terms: runs are of several versions of autoprune, {mixed}."] if len(versions) > 1 else []
    )
    return by_version + [
        f"Not on equal terms: on {task}, {key} is "
        + " and ".join(f"{value} for {listed(sorted(names), most=4)}" for value, names in sorted(by_value.items()))
        + "."
        for (task, key), by_value in sorted(values.items())
        if len(by_value) > 1
    ]


def listed(names: Sequence[str], *, most: int | None = None) -> str:
    """a, b and c; or a, b and 12 more.

    Args:
        names: Names, in order.
        most: How many are written out at most, the number of the others counting as one.
    """
    if most is not None and len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _agents_by_cells(labelled: Labelled, cells_of: Callable[[str], list[Cell]]) -> dict[tuple[Cell, ...], list[str]]:
    """Cells → the agents of which these are the ones; agents without any are left out."""
    agents: dict[tuple[Cell, ...], list[str]] = defaultdict(list)
    for name in labelled:
        if cells := cells_of(name):
            agents[tuple(cells)].append(name)
    return agents


def _places(cells: Sequence[Cell]) -> str:
    """Tasks and budgets, those of one budget together."""
    tasks: dict[str, list[str]] = defaultdict(list)
    for task, budget in cells:
        tasks[budget].append(task)
    return "; ".join(f"{listed(names)} at {budget}" for budget, names in tasks.items())


def _partly_recovered(labelled: Labelled) -> list[str]:
    """Agents some of whose runs were recovered, and others not."""
    sentences = []
    for name, cells in labelled.items():
        counts = {(sum(run.own.recovered is not None for run in runs), len(runs)) for runs in cells.values()}
        if partly := sorted((some, every) for some, every in counts if 0 < some < every):
            runs = " and ".join(f"{some} of {every} runs" for some, every in partly)
            sentences.append(
                f"Of {name}, {runs} of a task and budget were recovered: the recovered part is about those."
            )
    return sentences
