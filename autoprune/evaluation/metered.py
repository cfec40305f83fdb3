"""The evaluation budget: how many plans a search may have evaluated, and what it has seen."""

import time
from collections.abc import Callable, Sequence

from autoprune.evaluation.objective import Objective
from autoprune.evaluation.outcome import Outcome
from autoprune.evaluation.race import Stage
from autoprune.plan import PruningPlan

SEARCH = "search"  # the phase in which plans may be raced
POLICY = "policy"  # that of the plans which a learned policy makes without exploring
Record = Callable[[Outcome, int, str], None]  # (outcome, evaluation number from 1, phase)


class EvaluationsSpent(Exception):
    """A search asked for more evaluations than it was given; it ends, and keeps the best plan it has seen."""


class MeteredObjective:
    """An objective that charges every plan it is asked for, known ones too, and records each before it answers.

    uncharged: the same without that. seconds: how long the search has waited for answers, by the clock.
    """

    def __init__(self, objective: Objective, *, limit: int, record: Record) -> None:
        if limit < 1:
            raise ValueError(f"a search needs at least one evaluation, got {limit}")
        self.limit, self.spent, self.seconds = limit, 0, 0.0
        self.best: Outcome | None = None
        self.uncharged, self._record = objective, record

    @property
    def left(self) -> int:
        return self.limit - self.spent

    def evaluate(self, plans: Sequence[PruningPlan], *, phase: str = SEARCH, raced: bool = True) -> list[Outcome]:
        """The outcomes of the plans; those of the search itself are raced against each other and the best so far.

        Raises EvaluationsSpent once those that were still paid for are recorded.

        Args:
            plans: Plans to be judged.
            phase: The part of the run that evaluations are recorded under.
            raced: False for plans that may exceed the budget, which would win races against those that do not.
        """
        racing = raced and phase == SEARCH
        against = self.best.plan if racing and self.best is not None else None
        return self._charged(
            plans, lambda paid: self.uncharged.evaluate(paid, against=against, whole=not racing), phase
        )

    def select(self, plans: Sequence[PruningPlan], stages: Sequence[Stage]) -> list[Outcome]:
        """The outcomes of plans that are chosen among in stages (`Objective.select`); each is charged once.

        Raises EvaluationsSpent as `evaluate` does.

        Args:
            plans: Plans to be judged.
            stages: On which batches, and how many go on.
        """
        return self._charged(plans, lambda paid: self.uncharged.select(paid, stages), SEARCH)

    def _charged(
        self, plans: Sequence[PruningPlan], judge: Callable[[Sequence[PruningPlan]], list[Outcome]], phase: str
    ) -> list[Outcome]:
        start = time.perf_counter()
        outcomes = judge(plans[: self.left]) if self.left else []
        self.seconds += time.perf_counter() - start
        for outcome in outcomes:
            self.spent += 1
            if outcome.feasible and outcome.whole and (self.best is None or outcome.reward > self.best.reward):
                self.best = outcome
            self._record(outcome, self.spent, phase)
        if len(outcomes) < len(plans):
            raise EvaluationsSpent(f"all {self.limit} evaluations are spent")
        return outcomes
