"""A policy that learned on other networks proposes plans for this one: a handful of evaluations, and no learning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.agent.bundle import load_policy, load_training
from autoprune.agent.critic_proposals import proposals
from autoprune.agent.trained_policy import TrainedPolicy, normaliser_of
from autoprune.agent.training_record import TrainingRecord
from autoprune.cost.budget import Budget
from autoprune.env.transfer_features import ROW_FEATURES
from autoprune.env.transfer_task import TransferTask, transfer_task_of_problem
from autoprune.evaluation.outcome import Outcome
from autoprune.exchange.policies import fetch_policy
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem, best_plan
from autoprune.ranges import Count, checked


@dataclass(frozen=True, slots=True, eq=False)
class FittingPolicy:
    """A policy from elsewhere that fits a network."""

    policy: TrainedPolicy
    """It reads and acts."""
    training: TrainingRecord
    """What it was trained on."""
    max_log_correction: float
    """What an action of 1 adds to the prior's log-density."""


@checked
def search(problem: Problem, *, rng: np.random.Generator, policy: str | None, candidates: Count) -> PruningPlan:
    """The best of the uniform plan, the sensitivity plan and at most `candidates` plans that the policy proposes.

    The single-group curves that it reads are charged. All plans are judged on the proxy samples, so the policy's advice
    is never followed blindly.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        rng: Draws all that is random in the search.
        policy: As exchange.policies.fetch_policy takes it.
        candidates: How many plans of the policy are judged, at least 1.
    """
    fitting = transferred_to(policy, groups=len(problem.structure.groups), budget=problem.projector.budget)
    task, outcomes = transfer_task_of_problem(problem, max_log_correction=fitting.max_log_correction)
    count = min(candidates, problem.objective.left)
    problem.objective.evaluate(proposed(fitting.policy, task, outcomes, count=count, rng=rng), raced=False)
    return best_plan(problem)


def proposed(
    policy: TrainedPolicy, task: TransferTask, outcomes: Sequence[Outcome], *, count: int, rng: np.random.Generator
) -> list[PruningPlan]:
    """At most `count` new plans, what the policy thinks best first.

    Args:
        policy: The trained policy.
        task: The network as the policy sees it.
        outcomes: What was evaluated there.
        count: How many plans at most.
        rng: Draws all that is random in the search.
    """
    actions = proposals(policy, task.replay_seed(outcomes, groups=len(task.rows)), count=count, rng=rng)
    if not len(actions):
        return []
    evaluated = {outcome.plan.kept for outcome in outcomes}
    plans = {plan.kept: plan for plan in map(task.structure.plan, task.project(actions))}
    return [plan for kept, plan in plans.items() if kept not in evaluated]


def transferred_to(source: str | None, *, groups: int, budget: Budget) -> FittingPolicy:
    """The policy, loaded for a network of so many groups.

    Args:
        source: Where the policy comes from; None is refused.
        groups: How many groups there are.
        budget: The bound, relative to the dense network.

    Raises:
        ValueError: There is none, or it does not fit.
    """
    if source is None:
        raise ValueError(
            "this agent begins with a policy: policy=FOLDER, policy=shipped for the one that comes along, "
            "policy=wandb:ENTITY/PROJECT/NAME:VERSION or policy=hf:USER/REPO"
        )
    folder = fetch_policy(source)
    policy = load_policy(folder, groups=groups, features=ROW_FEATURES)
    training = load_training(folder)
    if training.max_log_correction is None or training.prior != "sensitivity" or not training.curves:
        raise ValueError(
            f"the policy in {folder} does not correct the sensitivity plan by its curves (prior {training.prior!r}, "
            f"max_log_correction {training.max_log_correction}), as policies do that are carried from network to "
            "network; make one by `autoprune train`"
        )
    _check_budget(training, budget, str(folder))
    return FittingPolicy(policy, training, training.max_log_correction)


def _check_budget(training: TrainingRecord, budget: Budget, folder: str) -> None:
    able = training.budget_texts
    way_out = "ask for a budget within it, or search without a policy"
    if len(budget.bounds) > 1:
        raise ValueError(
            f"the policy in {folder} was trained under one budget at a time, {', '.join(able.values())}, not under "
            f"{budget.text!r} together; {way_out}"
        )
    name = budget.cost.name
    if name not in able:
        raise ValueError(
            f"the policy in {folder} was trained under budgets of {', '.join(able.values()) or 'nothing'}, not of "
            f"{name}; {way_out}"
        )
    low, high = training.budgets[name]
    if not low <= budget.relative <= high:
        raise ValueError(
            f"the policy in {folder} was trained under {able[name]}, and {budget.text!r} is {budget.relative:.3f} of "
            f"dense; {way_out}"
        )


def transfer_record(
    policy: TrainedPolicy,
    *,
    tasks: Sequence[str],
    budget: str,
    budgets: Mapping[str, tuple[float, float]],
    seeds: Sequence[int],
    evaluations: int,
    max_log_correction: float,
) -> TrainingRecord:
    """What a transferable policy's bundle says of it: what `transferred_to` asks for, and what differs.

    Args:
        policy: The trained policy.
        tasks: Names of the networks that were trained on.
        budget: `cost:amount`, as the command line takes it.
        budgets: Cost → the least and the largest share that was trained under.
        seeds: Those of the runs that it was trained in.
        evaluations: How many plans were judged in training.
        max_log_correction: What an action of 1 adds to the prior's log-density, above 0.
    """
    return TrainingRecord(
        features=ROW_FEATURES,
        mode="one_shot",
        actions="corrections to the sensitivity plan",
        tasks=tuple(tasks),
        budget=budget,
        seeds=tuple(seeds),
        evaluations=evaluations,
        score="KL",
        budgets=budgets,
        max_log_correction=max_log_correction,
        prior="sensitivity",
        curves=True,
        normaliser=normaliser_of(policy),
    )
