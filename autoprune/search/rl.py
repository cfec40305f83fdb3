"""Reinforcement learning as a search: an agent proposes plans, and its policy is kept."""

from collections.abc import Mapping
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from autoprune.agent.bundle import Training, save_policy
from autoprune.agent.learn import check_length, learn
from autoprune.agent.policy import Policy
from autoprune.agent.spec import AgentSpec
from autoprune.cost.model import FloatArray
from autoprune.env.batched import LayerwiseVectorEnv, OneShotVectorEnv
from autoprune.env.discrete import DiscreteLevels
from autoprune.env.features import GROUP_FEATURES
from autoprune.env.layerwise import LayerwiseEnv
from autoprune.env.one_shot import OneShotEnv
from autoprune.plan import PruningPlan
from autoprune.search import sensitivity
from autoprune.search.problem import Problem, best_plan
from autoprune.search.start import first_plan

Mode = Literal["layerwise", "one_shot"]
Prior = Literal["none", "uniform", "sensitivity"]


def search(
    problem: Problem,
    *,
    rng: np.random.Generator,
    agent: AgentSpec,
    mode: Mode,
    prior: Prior,
    reach: float | None = None,
    levels: int | None = None,
    greedy_every: int | None = None,
) -> PruningPlan:
    """The best plan that the agent met while it learned; its policy is saved in the run's folder.

    mode: one group per step, or the whole plan as one action. prior: the plan that one-shot actions correct; the
    sensitivity plan's evaluations are charged. reach: how far a correction goes (OneShotEnv). levels: how many
    densities a DQN chooses from. greedy_every: after so many updates the policy's own plan, without exploration, is
    evaluated as well; None never does. An option that does not apply is an error.
    """
    _check(agent, mode=mode, prior=prior, reach=reach, levels=levels, greedy_every=greedy_every)
    steps = 1 if mode == "one_shot" else len(problem.structure.groups)
    # Before anything is paid for: what is left after the prior must be enough to learn from.
    charged = sensitivity.price(problem) if prior == "sensitivity" else int(prior == "uniform")
    check_length(agent, problem.objective.left - charged, steps)
    start = _prior_kept(problem, prior, rng)

    parts = _parts(problem, mode=mode, prior=start, reach=reach)
    apart, updates = _one(mode, parts, levels=levels), 0

    def on_update(policy: Policy) -> None:
        nonlocal updates
        updates += 1
        if greedy_every is not None and updates % greedy_every == 0:
            play(apart, policy)

    learned = learn(
        agent,
        env=_one(mode, parts, levels=levels) if agent.off_policy else _batch(mode, parts, agent.parallel_episodes),
        episode_steps=steps,
        episodes=problem.objective.left,
        seed=int(rng.integers(2**31)),
        on_metrics=problem.log_agent,
        stop=lambda: problem.objective.left == 0,
        on_update=on_update,
    )
    save_policy(
        learned.policy,
        problem.folder / "policy",
        training=Training(
            features=LayerwiseEnv.feature_names if mode == "layerwise" else (*GROUP_FEATURES, "budget"),
            mode=mode,
            actions=f"corrections to the {prior} plan" if start is not None else "densities",
            tasks=(problem.task,),
            budget=problem.projector.budget.text,
            seeds=(problem.seed,),
            evaluations=problem.objective.spent,
        ),
    )
    return best_plan(problem)


def play(env: gymnasium.Env, policy: Policy) -> None:
    """One episode of the policy without exploration; the objective records its plan."""
    observation, _ = env.reset()
    over = False
    while not over:
        observation, _, terminated, truncated, _ = env.step(policy.act(observation))
        over = terminated or truncated


def _parts(problem: Problem, *, mode: Mode, prior: FloatArray | None, reach: float | None) -> dict[str, Any]:
    """What every environment of this search is made of."""
    parts = {
        "structure": problem.structure,
        "projector": problem.projector,
        "evaluate": problem.objective.evaluate,
        "features": problem.features,
    }
    return parts if mode == "layerwise" else parts | {"prior": prior, "reach": reach or 1.0}


def _one(mode: Mode, parts: Mapping[str, Any], *, levels: int | None) -> gymnasium.Env:
    if mode == "one_shot":
        return OneShotEnv(**parts)
    env = LayerwiseEnv(**parts)
    return env if levels is None else DiscreteLevels(env, levels=levels)


def _batch(mode: Mode, parts: Mapping[str, Any], episodes: int) -> VectorEnv:
    """All episodes of a rollout at once: their plans are one batch for the objective."""
    return (OneShotVectorEnv if mode == "one_shot" else LayerwiseVectorEnv)(num_envs=episodes, **parts)


def _prior_kept(problem: Problem, prior: Prior, rng: np.random.Generator) -> FloatArray | None:
    if prior == "none":
        return None
    return np.array(first_plan(problem, start=prior, rng=rng).kept, np.float64)


def _check(
    agent: AgentSpec,
    *,
    mode: str,
    prior: str,
    reach: float | None,
    levels: int | None,
    greedy_every: int | None,
) -> None:
    if mode not in ("layerwise", "one_shot"):
        raise ValueError(f"agent.mode must be layerwise or one_shot, got {mode!r}")
    if prior not in ("none", "uniform", "sensitivity"):
        raise ValueError(f"agent.prior must be none, uniform or sensitivity, got {prior!r}")
    if mode == "layerwise" and prior != "none":
        raise ValueError(f"agent.prior={prior} is what one-shot actions correct; agent.mode=layerwise needs prior=none")
    if (reach is None) != (prior == "none"):
        raise ValueError(f"agent.reach says how far corrections to a prior go; got reach={reach} with prior={prior}")
    if (levels is None) != (agent.algorithm != "DQN"):
        raise ValueError(f"agent.levels is for DQN, and DQN needs it; got levels={levels} with {agent.algorithm}")
    if levels is not None and mode != "layerwise":
        raise ValueError(f"DQN chooses one of {levels} levels for one group at a time; agent.mode must be layerwise")
    if greedy_every is not None and greedy_every < 1:
        raise ValueError(f"agent.greedy_every must be at least 1 update, or null, got {greedy_every}")
