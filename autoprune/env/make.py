"""Environments from a task and a budget, for `gymnasium.make` and `gymnasium.make_vec`.

Settings that are not named here are the defaults of every problem (problem/spec.py), but that nothing is raced: a
plan's reward is its own, whichever other plans are evaluated together with it.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import TypedDict, Unpack

from gymnasium.vector import AutoresetMode

from autoprune.env.env_spec import EnvFactory, EnvSpec, Mode, Observed, PriorName, RewardShaping
from autoprune.env.episodes import PlanVectorEnv, SingleEpisode
from autoprune.evaluation.settings import EvaluationSettings
from autoprune.problem.problem import Problem
from autoprune.problem.spec import ProblemSpec
from autoprune.ranges import check_value
from autoprune.task.task import Task


class Options(TypedDict, total=False):
    """EnvSpec's fields, as far as they are no agent's."""

    mode: Mode
    prior: PriorName
    reward_shaping: RewardShaping
    observation: Observed
    max_log_correction: float | None
    levels: int | None
    edits: int | None
    length: int | None


def single(
    *,
    task: str | Task,
    budget: str | Sequence[str] | None = None,
    proxy_samples: int | None = None,
    render_mode: str | None = None,
    **options: Unpack[Options],
) -> SingleEpisode:
    """`gym.make("autoprune/OneShot-v0", task="digits", budget="macs:0.5", prior="sensitivity")`

    Args:
        task: A shipped task's name, or a Task of one's own.
        budget: One, or several as a list; None for the task's.
        proxy_samples: Of the search role; None for half of it, at most 1,500, unless the task says.
        render_mode: None, or "ansi".
        options: Fields of EnvSpec, which every agent has too; the prior's evaluations are made once, here.

    Raises:
        ValueError: Options do not fit together, or not to the task.
    """
    return _factory(task, budget, proxy_samples, options).one(render_mode=render_mode)


def vector(
    *,
    num_envs: int,
    task: str | Task,
    budget: str | Sequence[str] | None = None,
    proxy_samples: int | None = None,
    autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
    render_mode: str | None = None,
    **options: Unpack[Options],
) -> PlanVectorEnv:
    """`gym.make_vec("autoprune/OneShot-v0", num_envs=64, task="digits", budget="macs:0.5")`

    Args:
        num_envs: Episodes at once; their plans are one batch for the objective.
        task: As in `single`.
        budget: As in `single`.
        proxy_samples: As in `single`.
        autoreset_mode: SAME_STEP, NEXT_STEP, or DISABLED.
        render_mode: None, or "ansi".
        options: As in `single`.
    """
    factory = _factory(task, budget, proxy_samples, options)
    return factory.batch(num_envs, autoreset_mode=autoreset_mode, render_mode=render_mode)


def _factory(
    task: str | Task, budget: str | Sequence[str] | None, proxy_samples: int | None, options: Options
) -> EnvFactory:
    own = [field.name for field in fields(EnvSpec)]
    if unknown := sorted(options.keys() - own):
        raise ValueError(f"an environment has no option {unknown[0]!r}; it has task, budget, proxy_samples and {own}")
    try:
        spec = EnvSpec(**options)  # before anything is prepared
        check_value(task, str | Task, "task")
        check_value(budget, str | Sequence[str] | None, "budget")
        bounds = budget if budget is None or isinstance(budget, str) else tuple(budget)
        evaluation = EvaluationSettings(proxy_samples=proxy_samples, race=None)
    except TypeError as error:  # to which Gymnasium would add the whole task
        raise ValueError(str(error)) from error
    problem = Problem.prepare(task, ProblemSpec(budget=bounds, evaluation=evaluation))
    return EnvFactory(problem, spec, problem.objective.uncharged.evaluate, spec.prior_of(problem))
