"""Reinforcement learning as a search: an agent proposes plans, and its policy is kept."""

import math
from collections.abc import Sequence
from copy import copy

import numpy as np

from autoprune.agent.agent_spec import AgentSpec, Replay
from autoprune.agent.bundle import TrainingRecord, save_policy
from autoprune.agent.learn import check_length, learn
from autoprune.agent.trained_policy import TrainedPolicy, act_zero
from autoprune.cost.budget import Budget
from autoprune.env.env_spec import EnvFactory, EnvSpec
from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.evaluation.outcome import Outcome
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem, best_plan
from autoprune.ranges import Count
from autoprune.search.constraint import Constraint, rewarded
from autoprune.search.policy_trials import PolicyTrials, affordable, own_evaluations


def search(
    problem: Problem,
    *,
    rng: np.random.Generator,
    env: EnvSpec,
    agent: AgentSpec,
    constraint: Constraint,
    policy_evaluations: Count,
) -> PruningPlan:
    """Returns the best plan that the agent met while it learned; its policy is saved in the run's folder.

    Args:
        problem: What is searched.
        rng: Seeds the agent.
        env: How the objective is revealed to the agent.
        agent: What learns.
        constraint: How the budget is kept.
        policy_evaluations: How often the policy's own plan is evaluated: at the end, before it learns, and in between.
            The weights that made its best plan are those that are saved.

    Raises:
        ValueError: An option does not apply, or too few evaluations are left, before anything is charged.
    """
    constraint = copy(constraint)  # a multiplier that adapts does so in this search only
    steps, objective = env.steps(problem.structure), problem.objective
    for message in _misfits(agent, env, steps):
        raise ValueError(message)
    price = env.price(problem)
    left = objective.left - price
    left -= affordable(policy_evaluations, left, price=env.evaluations) * env.evaluations
    if left < env.evaluations:
        raise ValueError(
            f"of {objective.left} evaluations, {objective.left - left} are for the start and the policy's own plan, "
            "which leaves no episode to learn from: give the search more evaluations, or agent.env.prior=uniform"
        )
    check_length(agent, left // env.evaluations, steps, seeded=price if env.seed_replay else 0)
    prior = env.prior_of(problem)
    if prior is not None:  # what is known before the agent acts is no reason to adapt
        prior = prior.rewarded(lambda outcomes: rewarded(outcomes, copy(constraint), problem.projector.budget))

    def evaluate(plans: Sequence[PruningPlan]) -> list[Outcome]:
        # Plans outside the budget would win races against those inside, so nothing is raced where there are any.
        paid = plans[: objective.left - trials.reserved]
        outcomes = objective.evaluate(paid, raced=constraint.projected) if paid else []
        if len(paid) < len(plans):
            raise EvaluationsSpent("what is left is for the policy's own plans")
        return rewarded(outcomes, constraint, problem.projector.budget)

    factory = EnvFactory(problem, env, evaluate, prior, projected=constraint.projected)
    apart = factory.with_evaluate(own_evaluations(problem, projected=constraint.projected)).one()
    trials = PolicyTrials(problem, apart, price=env.evaluations, trials=policy_evaluations)

    def begin(policy: TrainedPolicy) -> None:
        if prior is not None:
            act_zero(policy)
        trials.begin(policy)

    learned = learn(
        agent,
        env=factory.batch(agent.parallel_episodes),
        episode_steps=steps,
        episodes=math.ceil(objective.left / env.evaluations) - 1,  # what trials need not is the agent's
        seed=int(rng.integers(2**31)),
        on_metrics=problem.log_agent,
        stop=lambda: objective.left <= trials.reserved,
        on_update=trials.when_due,
        seeds=[factory.replay_seed()] if env.seed_replay else [],
        begin=begin,
    )
    trials.finish(learned.policy)
    save_own_policy(problem, env, learned.policy)
    return best_plan(problem)


def save_own_policy(problem: Problem, env: EnvSpec, policy: TrainedPolicy, *, others: Sequence[Budget] = ()) -> None:
    """The policy is in the run's folder, with all that it needs to act on its own network.

    Args:
        problem: What was searched.
        env: What the policy acts in.
        policy: What learned.
        others: Budgets beside the problem's that it was trained under, of the same costs.
    """
    budgets = [problem.projector.budget, *others]
    shares: dict[str, list[float]] = {}
    for bound in (bound for budget in budgets for bound in budget.bounds):
        shares.setdefault(bound.cost.name, []).append(min(1.0, float(bound.relative)))
    save_policy(
        policy,
        problem.folder / "policy",
        training=TrainingRecord(
            features=env.features,
            mode=env.mode,
            actions="densities" if env.prior == "none" else f"corrections to the {env.prior} plan",
            tasks=(problem.task.name,),
            budget="; ".join(budget.text for budget in budgets),
            budgets={name: (min(each), max(each)) for name, each in shares.items()},
            seeds=(problem.seed,),
            evaluations=problem.objective.spent,
            environment=env.as_json(),
            groups=problem.structure.names,
            units=problem.structure.units.tolist(),
        ),
    )


def _misfits(agent: AgentSpec, env: EnvSpec, steps: int) -> list[str]:
    """What of an agent does not fit its environment; steps: of an episode."""
    misfits = []
    gamma, replay = (agent.hyperparameters or {}).get("gamma"), agent.experience
    if (env.levels is None) != (agent.algorithm != "DQN"):
        misfits.append(
            f"agent.env.levels are for DQN, and DQN needs them; got levels={env.levels} with {agent.algorithm}"
        )
    if agent.memory is not None and (env.mode == "one_shot" or env.length == 1):
        misfits.append(
            "an episode of one step has nothing to remember: RecurrentPPO needs agent.env.mode=layerwise, or edit with "
            "agent.env.length above 1"
        )
    if agent.network != "whole" and (env.mode == "layerwise" or env.observation == "budget"):
        misfits.append(
            f"network={agent.network} reads all groups' features at once: it needs "
            "agent.env.mode=one_shot or edit, and "
            f"agent.env.observation=groups; got {env.mode} and {env.observation}"
        )
    if isinstance(replay, Replay):
        if replay.shifted and (env.mode != "one_shot" or env.prior == "none"):
            misfits.append(
                "experience.shifted moves corrections of a plan: it needs agent.env.mode=one_shot and a prior"
            )
        if replay.standardised and steps > 1:
            misfits.append("standardised rewards are those of one-step episodes: they need agent.env.mode=one_shot")
        if replay.copy_terminal_reward and env.reward_shaping == "shaped":
            misfits.append(
                "a shaped return is that of all its steps: agent.env.reward_shaping=shaped needs "
                "copy_terminal_reward=false"
            )
    elif env.seed_replay:
        misfits.append(f"agent.env.seed_replay is what a replay begins with, and {agent.algorithm} has none")
    if agent.critic_guidance is not None and not env.seed_replay:
        misfits.append(
            "critic_guidance begins near plans that are known: it needs agent.env.mode=one_shot, a prior and "
            "agent.env.seed_replay=true"
        )
    if env.reward_shaping == "shaped" and gamma != 1:
        misfits.append(
            "agent.env.reward_shaping=shaped leaves the best plan the best only without discount: "
            f"set gamma=1.0, not {gamma}"
        )
    return misfits
