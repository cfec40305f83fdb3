"""Learning goes on from a policy that learned on other networks, or from nothing where it misleads."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from autoprune.agent.agent_spec import AgentSpec
from autoprune.agent.bundle import save_policy
from autoprune.agent.learn import check_length, learn
from autoprune.agent.trained_policy import TrainedPolicy, normalised
from autoprune.agent.training_record import TrainingRecord
from autoprune.env.episodes import SingleEpisode
from autoprune.env.transfer_env import TransferVectorEnv
from autoprune.env.transfer_task import TransferTask, transfer_price, transfer_task_of_problem
from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.evaluation.outcome import Outcome
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem, best_plan
from autoprune.ranges import Count
from autoprune.search.policy_trials import PolicyTrials, affordable, own_evaluations
from autoprune.search.zero_shot import FittingPolicy, proposed, transfer_record, transferred_to

log = logging.getLogger(__name__)


def search(
    problem: Problem, *, rng: np.random.Generator, policy: str | None, agent: AgentSpec, policy_evaluations: Count
) -> PruningPlan:
    """Returns the best plan that the agent met while it learned; its policy is saved in the run's folder.

    The given policy's proposals are evaluated first, as many as are one batch. Where none of them is better than the
    sensitivity and the uniform plan, the policy misleads: the agent forgets it, and learns from what was evaluated
    alone.

    Args:
        problem: What is searched.
        rng: Seeds the agent.
        policy: Where learning goes on from, as exchange.policies.fetch_policy takes it; None for from nothing.
        agent: Of network=transferable; the policy's own encoder, layers, critics and max_log_correction take the place
            of what it says.
        policy_evaluations: As in rl.search.
    """
    groups, batch = len(problem.structure.groups), agent.parallel_episodes
    begun = None if policy is None else transferred_to(policy, groups=groups, budget=problem.projector.budget)
    agent = agent if begun is None else like(agent, begun.policy)
    if agent.max_log_correction is None:
        raise ValueError(f"learning goes on with agent.agent.network=transferable, not {agent.network}")
    paid = transfer_price(problem) + (batch if begun else 0)
    left = problem.objective.left - paid
    check_length(agent, left - affordable(policy_evaluations, left, price=1), 1, seeded=paid)
    task, outcomes = transfer_task_of_problem(problem, max_log_correction=agent.max_log_correction)
    if begun is not None:
        proposals = problem.objective.evaluate(
            proposed(begun.policy, task, outcomes, count=batch, rng=rng), raced=False
        )
        if misled := not _better(task, proposals, than=outcomes):
            log.warning(
                "the policy misleads: none of the %d plans that it proposed for %s is better than the sensitivity and "
                "the uniform plan, so the search goes on without it", len(proposals), problem.task.name,
            )  # fmt: skip
            begun = None
        outcomes = [*outcomes, *proposals]
        problem.log_agent({"transfer/misled": float(misled)}, 0)

    def begin(fresh: TrainedPolicy) -> None:
        if begun is not None:
            fresh.network.load_state_dict(begun.policy.network.state_dict())
        else:
            normalised(fresh, task.rows)
        trials.begin(fresh)

    def evaluate(plans: Sequence[PruningPlan]) -> list[Outcome]:
        paid = plans[: problem.objective.left - trials.reserved]
        judged = problem.objective.evaluate(paid, raced=False) if paid else []
        if len(paid) < len(plans):
            raise EvaluationsSpent("what is left is for the policy's own plans")
        return judged

    own = replace(task, evaluate=own_evaluations(problem, projected=True))
    trials = PolicyTrials(problem, SingleEpisode(partial(TransferVectorEnv, [own])), price=1, trials=policy_evaluations)
    learned = learn(
        agent,
        env=TransferVectorEnv([replace(task, evaluate=evaluate)], num_envs=batch),
        episode_steps=1,
        episodes=problem.objective.left - 1,
        seed=int(rng.integers(2**31)),
        on_metrics=problem.log_agent,
        stop=lambda: problem.objective.left <= trials.reserved,
        on_update=trials.when_due,
        seeds=[task.replay_seed(outcomes, groups=groups)],
        begin=begin,
    )
    trials.finish(learned.policy)
    save_policy(
        learned.policy,
        problem.folder / "policy",
        training=_training(learned.policy, problem, begun, max_log_correction=agent.max_log_correction),
    )
    return best_plan(problem)


def like(agent: AgentSpec, policy: TrainedPolicy) -> AgentSpec:
    """The agent, with the policy's architecture.

    Args:
        agent: Which algorithm learns, and with which settings.
        policy: The trained policy.
    """
    options = policy.architecture["options"]
    return replace(
        agent,
        hidden=policy.architecture["hidden"],
        activation=policy.architecture["activation"],
        critics=options["n_critics"],
        encoder=options["encoder"],
        max_log_correction=options["max_log_correction"],
    )


def _better(task: TransferTask, outcomes: Sequence[Outcome], *, than: Sequence[Outcome]) -> bool:
    return max(map(task.reward, outcomes), default=-np.inf) > max(map(task.reward, than))


def _training(
    policy: TrainedPolicy, problem: Problem, begun: FittingPolicy | None, *, max_log_correction: float
) -> TrainingRecord:
    """What the policy was trained on: this network under this budget, after what came before."""
    budget = problem.projector.budget
    name, share = budget.tightest.cost.name, float(min(1.0, budget.tightest.relative))
    before = None if begun is None else begun.training
    budgets = {} if before is None else dict(before.budgets)
    low, high = budgets.get(name, (share, share))
    budgets[name] = (min(low, share), max(high, share))
    return transfer_record(
        policy,
        tasks=(*(() if before is None else before.tasks), problem.task.name),
        budget=budget.text if before is None else f"{before.budget}, then {budget.text}",
        budgets=budgets,
        seeds=(*(() if before is None else before.seeds), problem.seed),
        evaluations=problem.objective.spent + (0 if before is None else before.evaluations),
        max_log_correction=max_log_correction,
    )
