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
from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.evaluation.outcome import Outcome
from autoprune.plan import PruningPlan
from autoprune.problem.problem import Problem, best_plan
from autoprune.search import sensitivity
from autoprune.search.constraint import Constraint, rewarded
from autoprune.search.env_spec import Credit, EnvFactory, EnvSpec, Mode, Sees, Start, revealed
from autoprune.search.prior import prior_of


def search(
    problem: Problem,
    *,
    rng: np.random.Generator,
    agent: AgentSpec,
    constraint: Constraint,
    mode: Mode,
    prior: Start,
    reward_shaping: Credit,
    seed_replay: bool,
    observation: Sees,
    max_log_correction: float | None = None,
    levels: int | None = None,
    edits: int | None = None,
    length: int | None = None,
    greedy_every: int | None = None,
) -> PruningPlan:
    """The best plan that the agent met while it learned; its policy is saved in the run's folder.

    constraint: how the budget is kept. mode to length: how the objective becomes an environment, see Reveal.
    greedy_every: after so many updates the policy's own plan, without exploration, is evaluated as well; None never
    does. An option that does not apply is an error.
    """
    how = EnvSpec(
        mode=mode, prior=prior, max_log_correction=max_log_correction, levels=levels, edits=edits, length=length,
        reward_shaping=reward_shaping, seed_replay=seed_replay, observation=observation,
    )  # fmt: skip
    constraint = copy(constraint)  # a multiplier that adapts does so in this search only
    steps = how.steps(problem.structure)
    _check(agent, how, greedy_every, steps=steps)
    reserved = 0 if constraint.projected else 1  # evaluations, for the policy's own plan
    # Before anything is paid for: what is left after the prior must be enough to learn from.
    price = sensitivity.price(problem) if how.prior == "sensitivity" else int(how.prior == "uniform")
    episodes = (problem.objective.left - price - reserved) // how.evaluations
    check_length(agent, episodes, steps, told=price if how.seed_replay else 0)
    begun = None
    if how.prior != "none":  # what was found before the agent acts is no reason to adapt
        begun = prior_of(problem, start=how.prior).told(
            lambda outcomes: rewarded(outcomes, copy(constraint), problem.projector.budget)
        )

    def evaluate(plans: Sequence[PruningPlan]) -> list[Outcome]:
        # Plans outside the budget would win races against those inside, so nothing is raced where there are any.
        paid = plans[: problem.objective.left - reserved]
        outcomes = problem.objective.evaluate(paid, raced=constraint.projected) if paid else []
        if len(paid) < len(plans):
            raise EvaluationsSpent("what is left is for the policy's own plan")
        return rewarded(outcomes, constraint, problem.projector.budget)

    shown = revealed(problem, how, prior=begun, evaluate=evaluate, projected=constraint.projected)
    apart, updates = shown.one(), 0

    def on_update(policy: TrainedPolicy) -> None:
        nonlocal updates
        updates += 1
        if greedy_every is not None and updates % greedy_every == 0 and problem.objective.left > reserved:
            play(apart, policy)

    learned = learn(
        agent,
        env=shown.one() if agent.parallel_episodes == 1 else shown.many(agent.parallel_episodes),
        episode_steps=steps,
        episodes=math.ceil((problem.objective.left - reserved) / how.evaluations),
        seed=int(rng.integers(2**31)),
        on_metrics=problem.log_agent,
        stop=lambda: problem.objective.left <= reserved,
        on_update=on_update,
        known=[shown.known()] if how.seed_replay else [],
    )
    if not constraint.projected:
        _last_word(problem, shown, learned.policy)
    _save(problem, how, shown, learned.policy)
    return best_plan(problem)


def play(env: gymnasium.Env, policy: TrainedPolicy) -> None:
    """One episode of the policy without exploration; the objective records its plan."""
    observation, _ = env.reset()
    policy.begin()
    over = False
    while not over:
        observation, _, terminated, truncated, _ = env.step(policy.act(observation))
        over = terminated or truncated


def _save(problem: Problem, how: EnvSpec, shown: EnvFactory, policy: TrainedPolicy) -> None:
    save_policy(
        policy,
        problem.folder / "policy",
        training=TrainingRecord(
            features=shown.feature_names,
            mode=how.mode,
            actions="densities" if how.prior == "none" else f"corrections to the {how.prior} plan",
            tasks=(problem.task,),
            budget=problem.projector.budget.text,
            seeds=(problem.seed,),
            evaluations=problem.objective.spent,
        ),
    )


def _last_word(problem: Problem, shown: EnvFactory, policy: TrainedPolicy) -> None:
    """The policy's own plan is projected onto the budget and evaluated, so that the search has one that meets it."""

    def projected(plans: Sequence[PruningPlan]) -> list[Outcome]:
        wish: FloatArray = np.maximum(np.array([plan.kept for plan in plans]), 0.5) / problem.structure.units
        kept = problem.projector.project(wish)
        return problem.objective.evaluate([problem.structure.plan(row) for row in kept], raced=False)

    try:
        play(shown.with_evaluate(projected).one(), policy)
    except EvaluationsSpent:
        return


def _check(agent: AgentSpec, reveal: EnvSpec, greedy_every: int | None, *, steps: int) -> None:
    if (reveal.levels is None) != (agent.algorithm != "DQN"):
        raise ValueError(f"levels are for DQN, and DQN needs them; got levels={reveal.levels} with {agent.algorithm}")
    if agent.memory is not None and (reveal.mode == "one_shot" or reveal.length == 1):
        raise ValueError(
            "an episode of one step has nothing to remember: RecurrentPPO needs mode=layerwise, or edit with length>1"
        )
    if agent.network != "whole" and (reveal.mode == "layerwise" or reveal.observation == "budget"):
        raise ValueError(
            f"agent.network={agent.network} reads all groups' features at once: it needs mode=one_shot or edit, and "
            f"observation=groups; got {reveal.mode} and {reveal.observation}"
        )
    _check_replay(agent, reveal, steps)
    gamma = (agent.hyperparameters or {}).get("gamma")
    if reveal.reward_shaping == "shaped" and gamma != 1:
        raise ValueError(
            f"reward_shaping=shaped leaves the best plan the best only without discount: set gamma=1.0, not {gamma}"
        )
    if greedy_every is not None and greedy_every < 1:
        raise ValueError(f"agent.greedy_every must be at least 1 update, or null, got {greedy_every}")


def _check_replay(agent: AgentSpec, reveal: EnvSpec, steps: int) -> None:
    if (
        isinstance(agent.experience, Replay)
        and agent.experience.shifted
        and (reveal.mode != "one_shot" or reveal.prior == "none")
    ):
        raise ValueError("experience.shifted moves corrections of a plan: it needs mode=one_shot and a prior")
    if reveal.seed_replay and not agent.off_policy:
        raise ValueError(f"agent.seed_replay is what a replay begins with, and {agent.algorithm} has none")
    if agent.critic_guidance is not None and not reveal.seed_replay:
        raise ValueError(
            "proposals begin with changes of what is known: they need mode=one_shot, a prior and seed_replay=true"
        )
    if not isinstance(agent.experience, Replay):
        return
    if agent.experience.standardised and steps > 1:
        raise ValueError("standardised rewards are those of one-step episodes: they need agent.mode=one_shot")
    if agent.experience.copy_terminal_reward and reveal.reward_shaping == "shaped":
        raise ValueError(
            "a shaped return is that of all its steps: reward_shaping=shaped needs copy_terminal_reward=false"
        )
