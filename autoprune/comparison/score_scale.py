"""One scale for all tasks and budgets: 0 is the uniform plan, 1 the best plan known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.comparison.comparability import Cell
from autoprune.comparison.run_summary import UNIFORM, RunSummary
from autoprune.statistics import TINY, Floats


@dataclass(frozen=True, slots=True)
class Scale:
    """Scores on a line through two of them.

    >>> Scale(zero=-1.0, one=-0.5, best="ppo")(np.array([-1.0, -0.75])).tolist()
    [0.0, 0.5]
    """

    zero: float
    """The score that is 0."""
    one: float
    """The score that is 1."""
    best: str
    """Whose score is 1, "the optimum" where that is known."""

    @property
    def flat(self) -> bool:
        """Nothing that is known is better than uniform, so there is no scale."""
        return self.one - self.zero <= TINY

    def __call__(self, scores: Floats) -> Floats:
        return (scores - self.zero) / (self.one - self.zero)


def scale_of(cell: Cell, labelled: Mapping[str, Sequence[RunSummary]]) -> Scale:
    """The scale of one task and budget, from its runs by agent.

    Args:
        cell: A task and budget.
        labelled: Agent's label → its runs.

    Raises:
        ValueError: Uniform was not measured.
    """
    runs = [run for ours in labelled.values() for run in ours]
    uniform = [run.baselines[UNIFORM].score for run in runs if UNIFORM in run.baselines]
    uniform = uniform or [run.own.score for run in labelled.get(UNIFORM, ())]
    if not uniform:
        raise ValueError(
            f"no run on {cell[0]} at {cell[1]} says what the uniform plan's score is, which is 0 on the common scale; "
            "add runs of agent=uniform"
        )
    scores = [(run.own.score, name) for name, ours in labelled.items() for run in ours]
    scores += [(plan.score, name) for run in runs for name, plan in run.baselines.items()]
    one, best = max(scores, key=lambda entry: entry[0])
    optimum = max((run.optimum for run in runs if run.optimum is not None), default=-np.inf)
    return Scale(float(np.median(uniform)), max(one, optimum), "the optimum" if optimum >= one else best)
