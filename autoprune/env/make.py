"""Environments from a task and a budget, for `gymnasium.make` and `gymnasium.make_vec`.

Settings that are not named here are the defaults of every problem (problem/spec.py), but that nothing is raced: a
plan's reward is its own, whichever other plans are evaluated together with it. Whoever wants others makes a Problem.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce, wraps
from typing import Any, ParamSpec, TypedDict, TypeVar, Unpack

from gymnasium.vector import AutoresetMode

from autoprune.env.env_spec import EnvFactory, EnvSpec, Mode, Observed, PriorName, RewardShaping
from autoprune.env.episodes import PlanVectorEnv, SingleEpisode
from autoprune.evaluation.settings import EvaluationSettings
from autoprune.problem.problem import UNLIMITED, Problem
from autoprune.problem.spec import ProblemSpec
from autoprune.ranges import Count, FinitePositive, checked_call
from autoprune.task.task import Task

PATHS = ("agent.env.", "evaluation.")  # of these settings on the command line
P = ParamSpec("P")
T = TypeVar("T")


class Options(TypedDict, total=False):
    """EnvSpec's fields, as far as they are no agent's."""

    mode: Mode
    """One group per step, the whole plan as one action, or edits of the best plan so far."""
    prior: PriorName
    """The plan that actions correct, or that edits begin at."""
    reward_shaping: RewardShaping
    """Whether groups are paid for one by one, or all at the end."""
    observation: Observed
    """All groups' features and the budget, or the budget alone."""
    max_log_correction: FinitePositive | None
    """What an action of 1 adds to the prior's log-density; None: the default where there is a prior."""
    levels: Count | None
    """Densities of a discrete action space; None: actions are continuous."""
    edits: Count | None
    """Groups that one action of mode=edit changes at most."""
    length: Count | None
    """Edits in an episode of mode=edit."""


def _checked(make: Callable[P, T]) -> Callable[P, T]:
    """Every wrong argument is one sentence, which calls it what the caller calls it."""

    @wraps(make)
    def checked(*_: P.args, **given: P.kwargs) -> T:
        try:
            return checked_call(make, given, owner="the environment")
        except ValueError as error:
            raise ValueError(reduce(lambda text, path: text.replace(path, ""), PATHS, str(error))) from error

    return checked


@_checked
def single(
    *,
    task: str | Task | Problem,
    budget: str | Sequence[str] | None = None,
    proxy_samples: Count | None = None,
    evaluations: Count | None = None,
    render_mode: str | None = None,
    **options: Unpack[Options],
) -> SingleEpisode:
    """`gym.make("autoprune/OneShot-v0", task="digits", budget="macs:0.5", prior="sensitivity")`

    Args:
        task: A shipped task's name, a Task of one's own, or a Problem with all its settings.
        budget: One, or several as a list; None for the task's. A Problem has its own.
        proxy_samples: Of the search role; None for half of it, at most 1,500, unless the task says. A Problem has its
            own.
        evaluations: Plans that may be evaluated, the prior's included; a step that needs more raises EvaluationsSpent.
            None for any number, or what a Problem has left.
        render_mode: None, "ansi" or "rgb_array".
        options: Fields of EnvSpec, which every agent has too; the prior's evaluations are made once, here.

    Raises:
        ValueError: Options are unknown, do not fit together, or not to the task.
    """
    return _factory(task, budget, proxy_samples, evaluations, options).one(render_mode=render_mode)


@_checked
def vector(
    *,
    num_envs: Count,
    task: str | Task | Problem,
    budget: str | Sequence[str] | None = None,
    proxy_samples: Count | None = None,
    evaluations: Count | None = None,
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
        evaluations: As in `single`.
        autoreset_mode: SAME_STEP, NEXT_STEP, or DISABLED.
        render_mode: None, "ansi" or "rgb_array".
        options: As in `single`.
    """
    factory = _factory(task, budget, proxy_samples, evaluations, options)
    return factory.batch(num_envs, autoreset_mode=autoreset_mode, render_mode=render_mode)


def _factory(
    task: str | Task | Problem,
    budget: str | Sequence[str] | None,
    proxy_samples: int | None,
    evaluations: int | None,
    options: Options,
) -> EnvFactory:
    spec = EnvSpec(**options)  # before anything is prepared
    if isinstance(task, Problem):
        problem = task
        if budget is not None or proxy_samples is not None:
            raise ValueError(
                f"a Problem has its budget and its samples already; got budget={budget!r} and "
                f"proxy_samples={proxy_samples!r} beside it"
            )
    else:
        bounds = budget if budget is None or isinstance(budget, str) else tuple(budget)
        evaluation = EvaluationSettings(proxy_samples=proxy_samples, race=None)
        problem = Problem.prepare(task, ProblemSpec(budget=bounds, evaluation=evaluation))
    if evaluations is not None:
        problem = problem.limited(evaluations)
    judge: Any = problem.objective.uncharged.evaluate
    if problem.objective.limit < UNLIMITED:
        judge = partial(problem.objective.evaluate, raced=False)
    return EnvFactory(problem, spec, judge, spec.prior_of(problem))
