"""The plans that searches and environments begin at, evaluated and charged."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from autoprune.evaluation.curves import Curve, curve_plans, single_group_curves
from autoprune.evaluation.outcome import Outcome
from autoprune.plan import PruningPlan
from autoprune.prior.block_densities import block_plans
from autoprune.prior.closed_form_plan import MOST_PLANS, POWERS, closed_form_plans, reader_errors, unsolved_groups
from autoprune.prior.coded_pairs import coded_pairs, least_error_plans, pairs_of
from autoprune.prior.influence_plans import influence_plans
from autoprune.prior.sensitivity_plan import sensitivity_plan
from autoprune.prior.uniform_plan import uniform_plan
from autoprune.problem.problem import Problem

log = logging.getLogger(__name__)
Start = Literal["uniform", "sensitivity", "closed_form"]


@dataclass(frozen=True, slots=True, eq=False)
class Prior:
    """The plan that a search begins with, and what was paid for to find it."""

    outcome: Outcome
    """Of the plan itself."""
    others: Sequence[Outcome] = ()
    """Of other whole plans that were evaluated on the way."""
    curves: Mapping[str, Curve] | None = None
    """Single-group curves, where the plan comes from them."""

    def rewarded(self, reward: Callable[[Sequence[Outcome]], list[Outcome]]) -> "Prior":
        """Returns the same with the rewards that an agent learns from."""
        outcome, *others = reward([self.outcome, *self.others])
        return replace(self, outcome=outcome, others=tuple(others))


def first_plan(problem: Problem, *, start: Start) -> PruningPlan:
    """Returns the plan that `start` names, evaluated. Raises as `price` does, before anything is charged.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        start: The plan that the search begins at; what its evaluations cost is charged.
    """
    return prior_of(problem, start=start).outcome.plan


def price(problem: Problem, *, start: Start) -> int:
    """Returns how many evaluations the plan costs at most.

    Raises:
        ValueError: `start` is unknown, or fewer evaluations are left.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        start: The plan that the search begins at; what its evaluations cost is charged.
    """
    if start not in get_args(Start):
        raise ValueError(f"agent.start must be uniform, sensitivity or closed_form, got {start!r}")
    if start == "uniform":
        return 1
    if start == "closed_form" and pairs_of(problem.structure) is None and unsolved_groups(problem):
        return len(_without_errors(problem))
    if start == "closed_form":
        needed, why = MOST_PLANS, "one for each way to weigh the reconstruction errors"
        if problem.objective.left >= needed:
            return needed + len(_by_blocks(problem))
    else:
        points = sum(len(plans) for plans in curve_plans(problem.structure).values())
        needed, why = points + 2, f"{points} for single-group curves, the dense network and the plan itself"
    if problem.objective.left < needed:
        raise ValueError(
            f"the {start} plan needs {needed} evaluations: {why}; got {problem.objective.left}. Give it more with "
            "evaluations=N"
        )
    return needed


def prior_of(problem: Problem, *, start: Start) -> Prior:
    """Returns the plan's outcome with all that was evaluated to find it. Raises as `price` does.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        start: The plan that the search begins at; what its evaluations cost is charged.
    """
    price(problem, start=start)
    structure, projector, objective = problem.structure, problem.projector, problem.objective
    match start:
        case "uniform":
            return Prior(objective.evaluate([uniform_plan(structure, projector)])[0])
        case "closed_form":
            if plans := _closed_form(problem):
                plans = list(dict.fromkeys([*plans, *_by_blocks(problem)]))
            else:
                plans = _without_errors(problem)
                by_blocks = "those by blocks" if problem.structure.stages else "those of least influence"
                several = f"the best of the uniform plan and {by_blocks}"
                log.info(_no_closed_form(unsolved_groups(problem), "the uniform plan" if len(plans) == 1 else several))
            outcomes = sorted(objective.evaluate(plans, raced=False), key=lambda outcome: -outcome.reward)
            return Prior(outcomes[0], tuple(outcomes[1:]))
    curves = single_group_curves(structure, lambda plans: objective.evaluate(plans, phase="curves"))
    outcome = objective.evaluate([sensitivity_plan(structure, projector, curves)])[0]
    first, *_ = curves.values()
    others = [first.outcomes[-1], *(each for curve in curves.values() for each in curve.outcomes[:-1])]
    return Prior(outcome, tuple(others), curves)


def _closed_form(problem: Problem) -> list[PruningPlan]:
    """The plans of least error, over pairs of density and bits where groups are such; none where no error is known."""
    if pairs_of(problem.structure) is not None:
        pairs = coded_pairs(problem)
        return [] if pairs is None else least_error_plans(problem, pairs, POWERS)
    errors = reader_errors(problem)
    return [] if errors is None else closed_form_plans(problem.structure, problem.projector, errors)


def _without_errors(problem: Problem) -> list[PruningPlan]:
    """The uniform plan, those of a transformer's blocks and, of depth, those that leave out what has least influence.

    As many as are affordable.
    """
    plans = [uniform_plan(problem.structure, problem.projector), *block_plans(problem)]
    plans += influence_plans(problem, most=MOST_PLANS - 1)
    return list(dict.fromkeys(plans[::-1]))[: max(1, problem.objective.left)]


def _by_blocks(problem: Problem) -> list[PruningPlan]:
    """OWL's plan and ramps beside those of least error; as many as are affordable."""
    return block_plans(problem)[: max(0, problem.objective.left - MOST_PLANS)]


def _no_closed_form(unsolved: Sequence[str], instead: str) -> str:
    more = f" and {len(unsolved) - 1} more groups" if len(unsolved) > 1 else ""
    return f"least squares says nothing of {unsolved[0]}{more}, so the search begins at {instead} instead"
