"""What a carried policy acts in, made of a problem's parts: the plans that are known of it, and what is near others."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from autoprune.agent.sb3_model import ReplaySeed
from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.env.layerwise import Evaluate
from autoprune.env.transfer_env import TransferTask
from autoprune.env.transfer_features import ReferencePlan, neighbours, transfer_features
from autoprune.evaluation.curves import Curve, single_group_curves
from autoprune.evaluation.outcome import Outcome
from autoprune.problem.problem import Problem
from autoprune.search import sensitivity
from autoprune.search.neighbours import switches_near
from autoprune.search.sensitivity import sensitivity_plan
from autoprune.search.uniform import uniform_plan
from autoprune.structure.groups import Structure


def transfer_task_of(
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
    """The setting, whose prior is the sensitivity plan, and what was evaluated for it: the prior and the uniform plan.

    features: group_features under the projector's budget. curves: single-group ones, of any score.
    Raises RuntimeError where one of the two plans cannot be judged.
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
    found = TransferTask(
        name, structure, projector, evaluate, rows, neighbours(structure), prior, uniform, max_log_correction
    )
    return found, outcomes


def transfer_task_of_problem(problem: Problem, *, max_log_correction: float) -> tuple[TransferTask, Sequence[Outcome]]:
    """The same of a search's problem, whose single-group curves and two plans are charged."""
    price(problem)  # before anything is paid for
    objective = problem.objective
    curves = single_group_curves(problem.structure, lambda plans: objective.evaluate(plans, phase="curves"))
    return transfer_task_of(
        problem.task,
        problem.structure,
        problem.projector,
        evaluate=lambda plans: objective.evaluate(plans, raced=False),  # rewards compare plans that saw the same
        features=problem.features,
        errors=problem.errors,
        curves=curves,
        max_log_correction=max_log_correction,
    )


def price(problem: Problem) -> int:
    """What is charged before a carried policy acts, in evaluations. Raises ValueError where there are too few."""
    paid = sensitivity.price(problem) + 1
    if problem.objective.left <= paid:
        raise ValueError(
            f"a carried policy needs at least {paid + 1} evaluations: {paid} for single-group curves, the sensitivity "
            f"and the uniform plan, and one for its own; got {problem.objective.left}. Give it more with evaluations=N"
        )
    return paid


def of_kl(curve: Curve) -> Curve:
    """A curve of whatever score as one of the KL, in nats."""
    *pruned, dense = (outcome.metrics.kl for outcome in curve.outcomes)
    lost = np.maximum(0.0, np.array(pruned) - dense)
    lost = np.maximum.accumulate(lost[::-1])[::-1]  # keeping more never loses more: noise is levelled
    return replace(curve, loss=(*lost.tolist(), 0.0))


def replay_seed_of(setting: TransferTask, outcomes: Sequence[Outcome], *, groups: int) -> ReplaySeed:
    """What is known of a setting before an agent acts: plans that were evaluated, each inside the budget."""
    kept = np.array([outcome.plan.kept for outcome in outcomes])
    action_of = partial(setting.action_of, groups=groups)
    return ReplaySeed(
        observation=setting.observation(groups=groups),
        actions=action_of(kept),
        rewards=np.array([setting.reward(outcome) for outcome in outcomes]),
        executable=setting.executable,
        near=switches_near(setting.projector, plans_of=setting.plans_of, action_of=action_of),
        done=len(outcomes),
    )
