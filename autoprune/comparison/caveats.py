"""What a reader has to know before believing a comparison: who was not ranked, and what some have not run."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from autoprune.comparison.agent_ranking import FEWEST
from autoprune.comparison.comparability import Cell, Labelled
from autoprune.comparison.score_scale import Scale
from autoprune.comparison.statistics import seeds_needed


def notices(labelled: Labelled, scales: Mapping[Cell, Scale]) -> list[str]:
    said = [
        f"On {task} at {budget} nothing is better than the uniform plan, so there is nothing to normalise by: "
        "it is left out of the post-training ranking."
        for (task, budget), scale in scales.items()
        if scale.flat
    ]
    few: dict[tuple[Cell, ...], list[str]] = defaultdict(list)
    lacking: dict[tuple[Cell, ...], list[str]] = defaultdict(list)
    for name, cells in labelled.items():
        few[tuple(cell for cell, trials in cells.items() if len(trials) < FEWEST)].append(name)
        lacking[tuple(cell for cell in scales if cell not in cells)].append(name)
    for where, names in few.items():
        if where:
            one, them = len(names) == 1, listed(names)
            said.append(
                f"{them} {'is not ranked: it has' if one else 'are not ranked: they have'} one seed on "
                f"{_places(where)}. {FEWEST} seeds give an interval, {seeds_needed(1)} can tell two agents apart there."
            )
    for where, names in lacking.items():
        if where:
            one, them = len(names) == 1, listed(names)
            said.append(
                f"{them} {'has' if one else 'have'} no complete run on {_places(where)}: "
                + (
                    "its average is over the others, and it is"
                    if one
                    else "their averages are over the others, and they are"
                )
                + " listed last."
            )
    return [*said, *_partly_recovered(labelled)]


def _places(cells: Sequence[Cell]) -> str:
    """Tasks and budgets, those of one budget together."""
    tasks: dict[str, list[str]] = defaultdict(list)
    for task, budget in cells:
        tasks[budget].append(task)
    return "; ".join(f"{listed(names)} at {budget}" for budget, names in tasks.items())


def _partly_recovered(labelled: Labelled) -> list[str]:
    """Agents some of whose runs were recovered, and others not."""
    said = []
    for name, cells in labelled.items():
        counts = {(sum(t.own.recovered is not None for t in trials), len(trials)) for trials in cells.values()}
        partly = sorted((some, every) for some, every in counts if 0 < some < every)
        if partly:
            of = " and ".join(f"{some} of {every} runs" for some, every in partly)
            said.append(
                f"Of {name}, {of} of a task and budget were recovered: what is said of recovery is said of those."
            )
    return said


def listed(names: Sequence[str], *, most: int | None = None) -> str:
    """a, b and c; or a, b and 12 more."""
    if most is not None and len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
