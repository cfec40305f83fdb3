"""Reinforcement learning as a search: an agent proposes plans, and its policy is kept."""

import math
from collections.abc import Sequence
from copy import copy

import gymnasium
import numpy as np

from autoprune.agent.bundle import TrainingRecord, save_policy
from autoprune.agent.learn import check_length, learn
from autoprune.agent.spec import AgentSpec, Replay
from autoprune.agent.trained_policy import TrainedPolicy
from autoprune.cost.model import FloatArray
from autoprune.env.env_spec import EnvFactory, EnvSpec
from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.evaluation.outcome import Outcome
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem, best_plan
from autoprune.ranges import Count
from autoprune.search.constraint import Constraint, rewarded


def search(
    problem: Problem,
    *,
    rng: np.random.Generator,
    env: EnvSpec,
    agent: AgentSpec,
    constraint: Constraint,
    greedy_every: Count | None = None,
) -> PruningPlan:
    """Returns the best plan that the agent met while it learned; its policy is saved in the run's folder.

    Args:
        problem: What is searched.
        rng: Seeds the agent.
        env: How the objective is revealed to the agent.
        agent: What learns.
        constraint: How the budget is kept.
        greedy_every: After so many updates the policy's own plan, without exploration, is evaluated as well; None never
            does.

    Raises:
        ValueError: An option does not apply, or too few evaluations are left, before anything is charged.
    """
    constraint = copy(constraint)  # a multiplier that adapts does so in this search only
    steps = env.steps(problem.structure)
    for message in _misfits(agent, env, steps):
        raise ValueError(message)
    if greedy_every is not None and greedy_every < 1:
        raise ValueError(f"agent.greedy_every must be at least 1 update, or null, got {greedy_every}")
    reserved = 0 if constraint.projected else 1  # evaluations, for the policy's own plan
    price = env.price(problem)  # before anything is paid for
    episodes = (problem.objective.left - price - reserved) // env.evaluations
    check_length(agent, episodes, steps, seeded=price if env.seed_replay else 0)
    prior = env.prior_of(problem)
    if prior is not None:  # what is known before the agent acts is no reason to adapt
        prior = prior.rewarded(lambda outcomes: rewarded(outcomes, copy(constraint), problem.projector.budget))

    def evaluate(plans: Sequence[PruningPlan]) -> list[Outcome]:
        # Plans outside the budget would win races against those inside, so nothing is raced where there are any.
        paid = plans[: problem.objective.left - reserved]
        outcomes = problem.objective.evaluate(paid, raced=constraint.projected) if paid else []
        if len(paid) < len(plans):
            raise EvaluationsSpent("what is left is for the policy's own plan")
        return rewarded(outcomes, constraint, problem.projector.budget)

    factory = EnvFactory(problem, env, evaluate, prior, projected=constraint.projected)
    apart, updates = factory.one(), 0

    def on_update(policy: TrainedPolicy) -> None:
        nonlocal updates
        updates += 1
        if greedy_every is not None and updates % greedy_every == 0 and problem.objective.left > reserved:
            play(apart, policy)

    learned = learn(
        agent,
        env=factory.batch(agent.parallel_episodes),
        episode_steps=steps,
        episodes=math.ceil((problem.objective.left - reserved) / env.evaluations),
        seed=int(rng.integers(2**31)),
        on_metrics=problem.log_agent,
        stop=lambda: problem.objective.left <= reserved,
        on_update=on_update,
        seeds=[factory.replay_seed()] if env.seed_replay else [],
    )
    if not constraint.projected:
        _evaluate_projected(problem, factory, learned.policy)
    _save(problem, env, learned.policy)
    return best_plan(problem)


def play(env: gymnasium.Env, policy: TrainedPolicy) -> None:
    """Plays one episode of the policy without exploration; the objective records its plan."""
    observation, _ = env.reset()
    policy.begin()
    over = False
    while not over:
        observation, _, terminated, truncated, _ = env.step(policy.act(observation))
        over = terminated or truncated


def _save(problem: Problem, env: EnvSpec, policy: TrainedPolicy) -> None:
    save_policy(
        policy,
        problem.folder / "policy",
        training=TrainingRecord(
            features=env.features,
            mode=env.mode,
            actions="densities" if env.prior == "none" else f"corrections to the {env.prior} plan",
            tasks=(problem.task.name,),
            budget=problem.projector.budget.text,
            seeds=(problem.seed,),
            evaluations=problem.objective.spent,
        ),
    )


def _evaluate_projected(problem: Problem, factory: EnvFactory, policy: TrainedPolicy) -> None:
    """The policy's own plan is projected onto the budget and evaluated, so that the search has one that meets it."""

    def projected(plans: Sequence[PruningPlan]) -> list[Outcome]:
        density: FloatArray = np.maximum(np.array([plan.kept for plan in plans]), 0.5) / problem.structure.units
        kept = problem.projector.project(density)
        return problem.objective.evaluate([problem.structure.plan(row) for row in kept], raced=False)

    try:
        play(factory.with_evaluate(projected).one(), policy)
    except EvaluationsSpent:
        return


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
