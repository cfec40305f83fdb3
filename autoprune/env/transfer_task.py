"""A network under a budget as a transferable policy reads it, made of a problem's parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.env.action_scale import Action, PlanScale
from autoprune.env.episodes import Evaluate, Observation
from autoprune.env.replay_seed import ReplaySeed
from autoprune.env.transfer_features import NOTHING, ReferencePlan, neighbours, padded, transfer_features
from autoprune.evaluation.curves import Curve, single_group_curves
from autoprune.evaluation.outcome import Outcome
from autoprune.prior.level_switches import switches_near
from autoprune.prior.sensitivity_plan import sensitivity_plan
from autoprune.prior.starts import price
from autoprune.prior.uniform_plan import uniform_plan
from autoprune.problem.problem import Problem
from autoprune.structure.groups import IntArray, Structure

MOST = 3.0  # that a reward says at most, either way: e³ is a plan that loses twenty times as much as the prior


@dataclass(frozen=True, slots=True, eq=False)
class TransferTask:
    """A network under a budget, as a transferable policy reads it.

    Actions [..., at least groups] correct the prior plan's log-densities; what they ask for is filled to the budget,
    and entries beyond the network's groups are ignored, and executed as 0. A reward is by how much the plan's KL is
    below the prior's, as a difference of logarithms, so that it means the same on any network.
    """

    name: str
    """Of the network."""
    structure: Structure
    """Groups to decide on."""
    projector: Projector
    """Holds the budget."""
    evaluate: Evaluate
    """Judges a batch of plans."""
    rows: FloatArray
    """What is observed of each group [groups, len(ROW_FEATURES)]."""
    edges: FloatArray
    """Which groups are neighbours [groups, groups]."""
    prior: ReferencePlan
    """The plan that actions correct."""
    uniform: ReferencePlan
    """The uniform plan."""
    max_log_correction: float
    """What an action of 1 adds to the prior's log-density."""
    _scale: PlanScale = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_scale", PlanScale.around(self.prior.kept, self.structure, self.max_log_correction))

    def observation(self, *, groups: int) -> Observation:
        """Returns what is observed, padded to so many groups."""
        return padded(self.rows, self.edges, groups=groups)

    def project(self, actions: Action) -> IntArray:
        """Returns the filled plans [n, groups] that actions [n, any] ask for."""
        return self.projector.project(self._scale.density(np.asarray(actions, np.float64)[:, : len(self.rows)]))

    def executable(self, actions: Action) -> Action:
        """Returns what would be executed of actions [n, any]."""
        return self.action_of(self.project(actions), groups=actions.shape[1])

    def plans_of(self, executed: Action) -> IntArray:
        """Returns the plans [n, groups] that executed actions [n, any] say."""
        return self._scale.plans_of(executed[:, : len(self.rows)], self.projector)

    def action_of(self, kept: IntArray, *, groups: int) -> Action:
        """Returns the actions [n, groups] that come nearest to saying kept [n, groups of the network].

        Args:
            kept: Units that each group keeps [..., groups].
            groups: How many groups there are.
        """
        padded_actions = np.zeros((len(kept), groups), np.float32)
        padded_actions[:, : len(self.rows)] = self._scale.action(np.asarray(kept) / self.structure.units)
        return padded_actions

    def reward(self, outcome: Outcome) -> float:
        """Returns the reward in [−MOST, MOST]; a plan that could not be judged earns the least."""
        if outcome.failed is not None:
            return -MOST
        gain = np.log(self.prior.lost + NOTHING) - np.log(max(0.0, outcome.metrics.kl) + NOTHING)
        return float(np.clip(gain, -MOST, MOST))

    def replay_seed(self, outcomes: Sequence[Outcome], *, groups: int) -> ReplaySeed:
        """Returns what is known before an agent acts: plans that were evaluated, each inside the budget.

        Args:
            outcomes: What was evaluated, with its results.
            groups: How many groups there are.
        """
        kept = np.array([outcome.plan.kept for outcome in outcomes])
        action_of = partial(self.action_of, groups=groups)
        return ReplaySeed(
            observation=self.observation(groups=groups),
            actions=action_of(kept),
            rewards=np.array([self.reward(outcome) for outcome in outcomes]),
            executable=self.executable,
            neighbours=switches_near(self.projector, plans_of=self.plans_of, action_of=action_of),
            done=len(outcomes),
        )


def transfer_task_of(  # noqa: PLR0913 - keyword-only: what a task is of
    name: str,
    structure: Structure,
    projector: Projector,
    *,
    evaluate: Evaluate,
    features: FloatArray,
    errors: Mapping[str, FloatArray],
    curves: Mapping[str, Curve],
    max_log_correction: float,
) -> tuple[TransferTask, Sequence[Outcome]]:
    """Returns a task whose prior is the sensitivity plan, and the outcomes of that and of the uniform plan.

    Args:
        name: Of the network.
        structure: Groups to decide on.
        projector: Holds the budget.
        evaluate: Judges a batch of plans.
        features: group_features under this budget [groups, len(GROUP_FEATURES)].
        errors: Group → [units + 1], reconstruction errors in closed form.
        curves: Single-group curves, of any score.
        max_log_correction: What an action of 1 adds to the prior's log-density.

    Raises:
        RuntimeError: One of the two plans cannot be judged.
    """
    curves = {group: of_kl(curve) for group, curve in curves.items()}
    plans = [sensitivity_plan(structure, projector, curves), uniform_plan(structure, projector)]
    outcomes = evaluate(plans)
    for plan, outcome in zip(plans, outcomes, strict=True):
        if outcome.failed is not None:
            raise RuntimeError(f"{name}: the plan {plan.kept} could not be judged: {outcome.failed}")
    prior, uniform = (ReferencePlan(np.array(o.plan.kept), max(0.0, o.metrics.kl)) for o in outcomes)
    rows = transfer_features(
        structure, features, errors=errors, curves=curves, budget=projector.budget, prior=prior, uniform=uniform
    )
    task = TransferTask(
        name, structure, projector, evaluate, rows, neighbours(structure), prior, uniform, max_log_correction
    )
    return task, outcomes


def transfer_task_of_problem(problem: Problem, *, max_log_correction: float) -> tuple[TransferTask, Sequence[Outcome]]:
    """Returns the same of a search's problem, whose single-group curves and two plans are charged.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        max_log_correction: What an action of 1 adds to the prior's log-density, above 0.
    """
    transfer_price(problem)  # before anything is paid for
    objective = problem.objective
    curves = single_group_curves(problem.structure, lambda plans: objective.evaluate(plans, phase="curves"))
    return transfer_task_of(
        problem.task.name,
        problem.structure,
        problem.projector,
        evaluate=lambda plans: objective.evaluate(plans, raced=False),  # rewards compare plans that saw the same
        features=problem.features,
        errors=problem.errors,
        curves=curves,
        max_log_correction=max_log_correction,
    )


def transfer_price(problem: Problem) -> int:
    """Returns the evaluations before a transferable policy acts. Raises ValueError where there are too few."""
    paid = price(problem, start="sensitivity") + 1
    if problem.objective.left <= paid:
        raise ValueError(
            f"a transferable policy needs at least {paid + 1} evaluations: {paid} for single-group "
            "curves, the sensitivity "
            f"and the uniform plan, and one for its own; got {problem.objective.left}. Give it more with evaluations=N"
        )
    return paid


def of_kl(curve: Curve) -> Curve:
    """Returns a curve of whatever score as one of the KL, in nats."""
    *pruned, dense = (outcome.metrics.kl for outcome in curve.outcomes)
    lost = np.maximum(0.0, np.array(pruned) - dense)
    lost = np.maximum.accumulate(lost[::-1])[::-1]  # keeping more never loses more: noise is levelled
    return replace(curve, loss=(*lost.tolist(), 0.0))
