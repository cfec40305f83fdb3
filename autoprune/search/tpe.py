"""The tree-structured Parzen estimator (Bergstra et al., NIPS 2011) over densities, by Optuna."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np

from autoprune.evaluation.metered import EvaluationsSpent
from autoprune.plan import PruningPlan
from autoprune.prior.level_switches import log_midpoint_target
from autoprune.problem.problem import Problem, best_plan
from autoprune.ranges import Count, Density, checked


@checked
def search(problem: Problem, *, rng: np.random.Generator, least_density: Density, random: Count) -> PruningPlan:
    """The best of as many plans as there are evaluations; the densities of the first `random` are drawn at random.

    It models the densities that it asked for, which ranks plans better than those that the projection made of them.
    Raises ImportError without the extra `search`, before anything is paid for.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        rng: Draws all that is random in the search.
        least_density: The lower end of the densities that are asked for, in (0, 1).
        random: How many of the first plans are drawn at random.
    """
    optuna = _optuna()
    structure, projector = problem.structure, problem.projector
    highest = log_midpoint_target(projector, structure.units)
    ranges = {
        name: optuna.distributions.UniformDistribution(least_density, most)
        for name, most in zip(structure.names, highest.tolist(), strict=True)
    }
    with _told_nothing(optuna):
        sampler = optuna.samplers.TPESampler(seed=int(rng.integers(2**31)), n_startup_trials=random)
        study = optuna.create_study(direction="maximize", sampler=sampler)
    try:
        while True:
            trial = study.ask(ranges)
            kept = projector.project(np.array([trial.params[name] for name in structure.names]))
            outcome = problem.objective.evaluate([structure.plan(kept)])[0]
            study.tell(trial, outcome.reward)
    except EvaluationsSpent:
        return best_plan(problem)


def _optuna() -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Deprecated API features")  # of SQLAlchemy, which is imported only
            import optuna
    except ImportError as error:
        raise ImportError("agent=tpe needs the extra `search`: pip install 'autoprune[search]'") from error
    return optuna


@contextmanager
def _told_nothing(optuna: ModuleType) -> Iterator[None]:
    """Optuna announces every study on standard error."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
