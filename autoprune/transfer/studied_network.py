"""A network that was looked at: what all plans for it, under whatever budget, have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from autoprune.cost.budget import Budget
from autoprune.env.transfer_task import TransferTask, transfer_task_of
from autoprune.evaluation.curves import Curve, single_group_curves
from autoprune.evaluation.outcome import Outcome
from autoprune.problem.problem import Problem

Placed = tuple[TransferTask, Sequence[Outcome]]  # and what was evaluated for it


@dataclass(frozen=True, slots=True, eq=False)
class StudiedNetwork:
    """A problem and its single-group curves, which are the same under all budgets."""

    problem: Problem
    """Under any budget."""
    curves: Mapping[str, Curve]
    """Group → what pruning it alone loses."""

    @classmethod
    def study(cls, problem: Problem) -> "StudiedNetwork":
        """Every group was evaluated alone at a few levels."""
        evaluate = partial(problem.objective.uncharged.evaluate, whole=True)
        return cls(problem, single_group_curves(problem.structure, evaluate))

    @property
    def evaluations(self) -> int:
        """What the curves took, the dense network's one included."""
        return 1 + sum(len(curve.outcomes) - 1 for curve in self.curves.values())

    def under(self, budget: Budget, *, max_log_correction: float) -> Placed:
        """What a transferable policy reads of the network under a budget, and what was evaluated for it.

        Args:
            budget: Of any cost that the problem counts.
            max_log_correction: What an action of 1 adds to the prior's log-density, above 0.
        """
        problem = self.problem.under(budget)
        return transfer_task_of(
            problem.task.name,
            problem.structure,
            problem.projector,
            evaluate=partial(problem.objective.uncharged.evaluate, whole=True),
            features=problem.features,
            errors=problem.errors,
            curves=self.curves,
            max_log_correction=max_log_correction,
        )
