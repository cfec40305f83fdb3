"""One scale for all tasks and budgets: 0 is the uniform plan, 1 the best plan known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.comparison.comparability import Cell
from autoprune.comparison.run_summary import UNIFORM, RunSummary
from autoprune.comparison.statistics import TINY, Floats


@dataclass(frozen=True, slots=True)
class Scale:
    """zero, one: the scores that are 0 and 1. best: whose score is 1, "the optimum" where that is known.

    >>> Scale(zero=-1.0, one=-0.5, best="ppo")(np.array([-1.0, -0.75])).tolist()
    [0.0, 0.5]
    """

    zero: float
    one: float
    best: str

    @property
    def flat(self) -> bool:
        """Nothing that is known is better than uniform, so there is no scale."""
        return self.one - self.zero <= TINY

    def __call__(self, scores: Floats) -> Floats:
        return (scores - self.zero) / (self.one - self.zero)


def scale_of(cell: Cell, labelled: Mapping[str, Sequence[RunSummary]]) -> Scale:
    """The scale of one task and budget, from its trials by agent. Raises ValueError where uniform was not measured."""
    trials = [trial for ours in labelled.values() for trial in ours]
    uniform = [trial.baselines[UNIFORM].score for trial in trials if UNIFORM in trial.baselines]
    uniform = uniform or [trial.own.score for trial in labelled.get(UNIFORM, ())]
    if not uniform:
        raise ValueError(
            f"no run on {cell[0]} at {cell[1]} says what the uniform plan's score is, which is 0 on the common scale; "
            "add runs of agent=uniform"
        )
    zero = float(np.median(uniform))
    known = {name: max(trial.own.score for trial in ours) for name, ours in labelled.items() if ours}
    for trial in trials:
        for name, baseline in trial.baselines.items():
            known[name] = max(known.get(name, baseline.score), baseline.score)
    optima = [trial.optimum for trial in trials if trial.optimum is not None]
    best = max(known, key=lambda name: known[name])
    if optima and max(optima) >= known[best]:
        return Scale(zero, max(optima), "the optimum")
    return Scale(zero, known[best], best)
