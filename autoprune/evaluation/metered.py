"""The evaluation budget: how many plans a search may have evaluated, and what it has seen."""

from collections.abc import Callable, Sequence

from autoprune.evaluation.objective import Objective
from autoprune.evaluation.outcome import Outcome
from autoprune.plan import PruningPlan

Record = Callable[[Outcome, int, str], None]  # (outcome, evaluation number from 1, phase)


class EvaluationsSpent(Exception):
    """A search asked for more evaluations than it was given; it ends, and keeps the best plan it has seen."""


class MeteredObjective:
    """An objective that charges every plan it is asked for, known ones too, and records each before it answers."""

    def __init__(self, objective: Objective, *, limit: int, record: Record) -> None:
        if limit < 1:
            raise ValueError(f"a search needs at least one evaluation, got {limit}")
        self.limit, self.spent = limit, 0
        self.best: Outcome | None = None
        self._objective, self._record = objective, record

    @property
    def left(self) -> int:
        return self.limit - self.spent

    def evaluate(self, plans: Sequence[PruningPlan], *, phase: str = "search") -> list[Outcome]:
        """The outcomes of the plans. Raises EvaluationsSpent once those that were still paid for are recorded."""
        outcomes = []
        for plan in plans[: self.left]:
            outcome = self._objective.evaluate([plan])[0]
            self.spent += 1
            if outcome.feasible and (self.best is None or outcome.reward > self.best.reward):
                self.best = outcome
            self._record(outcome, self.spent, phase)
            outcomes.append(outcome)
        if len(outcomes) < len(plans):
            raise EvaluationsSpent(f"all {self.limit} evaluations are spent")
        return outcomes
