"""A network that was looked at: what all plans for it, under whatever budget, have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from autoprune.cost.budget import Budget
from autoprune.env.transfer_task import TransferTask, transfer_task_of
from autoprune.evaluation.curves import Curve, single_group_curves
from autoprune.evaluation.metered import MeteredObjective, Record
from autoprune.evaluation.outcome import Outcome
from autoprune.problem.prepare import Prepared
from autoprune.problem.problem import Problem

Placed = tuple[TransferTask, Sequence[Outcome]]  # and what was evaluated for it


@dataclass(frozen=True, slots=True, eq=False)
class StudiedNetwork:
    """A task made ready, with its single-group curves; evaluations: what those took."""

    prepared: Prepared
    curves: Mapping[str, Curve]
    evaluations: int

    @classmethod
    def study(cls, prepared: Prepared) -> "StudiedNetwork":
        """Evaluates every group alone at a few levels."""
        curves = single_group_curves(prepared.structure, partial(prepared.objective.evaluate, whole=True))
        return cls(prepared, curves, 1 + sum(len(curve.outcomes) - 1 for curve in curves.values()))

    def under(self, budget: Budget, *, max_log_correction: float) -> Placed:
        """The network as a setting, and what was evaluated for it."""
        within = self.prepared.within(budget)
        return transfer_task_of(
            within.task.name,
            within.structure,
            within.projector,
            evaluate=partial(within.objective.evaluate, whole=True),
            features=within.features,
            errors=within.errors,
            curves=self.curves,
            max_log_correction=max_log_correction,
        )

    def problem(
        self, budget: Budget, *, evaluations: int, seed: int, folder: Path, record: Record = lambda *_: None
    ) -> Problem:
        """The network under a budget as any search takes it, with so many evaluations."""
        within = self.prepared.within(budget)
        return Problem.of(
            within,
            objective=MeteredObjective(within.objective, limit=evaluations, record=record),
            seed=seed,
            folder=folder,
        )
