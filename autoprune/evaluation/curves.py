"""Single-group curves: what pruning one group alone does to the score."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.evaluation.outcome import Outcome
from autoprune.plan import PruningPlan
from autoprune.structure.groups import IntArray, Structure

# where each group is measured, as fractions of its units: at fewer places where there are many groups
DENSITIES = ((40, (0.1, 0.25, 0.4, 0.6, 0.8)), (80, (0.25, 0.5, 0.75)), (120, (0.3, 0.6)))
ELSE = (0.5,)

Evaluate = Callable[[Sequence[PruningPlan]], list[Outcome]]


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """The score that is lost by pruning one group alone."""

    kept: IntArray
    """Units that the group keeps, ascending; the last is all of them [points]."""
    loss: tuple[float, ...]
    """What each loses of the dense score, at least 0 [points]."""
    outcomes: tuple[Outcome, ...]
    """Each plan's; the last is the dense network's [points]."""

    def at(self, levels: Sequence[int]) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        """The loss at any numbers of kept units [levels], linear between measured points."""
        return np.interp(np.asarray(levels, np.float64), self.kept, self.loss)


def curve_plans(structure: Structure) -> dict[str, list[PruningPlan]]:
    """The plans that prune one group alone, per group, fewest units first."""
    plans: dict[str, list[PruningPlan]] = {}
    densities = next((where for most, where in DENSITIES if len(structure.groups) <= most), ELSE)
    for index, group in enumerate(structure.groups):
        levels = np.array(group.levels[:-1])
        chosen = sorted({int(levels[np.abs(levels - d * group.units).argmin()]) for d in densities if len(levels)})
        plans[group.name] = []
        for kept in chosen:
            whole = structure.units
            whole[index] = kept
            plans[group.name].append(structure.plan(whole))
    return plans


def single_group_curves(
    structure: Structure, evaluate: Evaluate, *, on_group: Callable[[int], None] | None = None
) -> Mapping[str, Curve]:
    """Evaluates every group alone at a few levels, and the dense network once, as the level where nothing is lost.

    Args:
        structure: The network's groups and layers.
        evaluate: Judges a batch of plans.
        on_group: Told how many groups are done.
    """
    dense = evaluate([structure.dense])[0]
    curves = {}
    for index, (name, plans) in enumerate(curve_plans(structure).items()):
        outcomes = evaluate(plans)
        lost = [max(0.0, dense.score - outcome.score) for outcome in outcomes]
        lost = np.maximum.accumulate(lost[::-1])[::-1].tolist()  # keeping more never loses more: noise is levelled
        kept = np.array([*(plan.kept[index] for plan in plans), structure.units[index]], np.int64)
        curves[name] = Curve(kept, (*lost, 0.0), (*outcomes, dense))
        if on_group is not None:
            on_group(len(curves))
    return curves
