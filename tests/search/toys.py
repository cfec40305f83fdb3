"""Problems without a network: any structure, a loss that is a formula of the kept units, and its optimum known."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from autoprune.cost.budget import Budget
from autoprune.cost.model import QuadraticCost
from autoprune.cost.projection import Projector
from autoprune.evaluation import judge, reward
from autoprune.evaluation.candidates import Candidates
from autoprune.evaluation.curves import Curve
from autoprune.evaluation.metered import MeteredObjective
from autoprune.evaluation.objective import Objective
from autoprune.evaluation.race import Race
from autoprune.evaluation.workers import InProcess
from autoprune.problem.problem import Problem
from autoprune.problem.spec import ProblemSpec
from autoprune.repair.least_squares import Reconstruction
from autoprune.structure.groups import Comparison, Group, Layer, Skip, Structure
from tests.evaluation.tables import BLOCKS, Kept, Table
from tests.tasks import tiny_task

BATCHES = 8
INPUTS, OUTPUTS = 40, 5  # of a block's matrices
TASK = replace(tiny_task(), name="toy")  # whose network nobody looks at


def weights(name: str, *, units: int, levels: tuple[int, ...] | None = None) -> Group:
    return Group(name, "weight", units, (), levels or tuple(range(1, units + 1)))


def depth(name: str, returns: Any = "input") -> Group:
    return Group(name, "block", 1, (), (0, 1), skips=(Skip(name, returns),))


def additive(
    *groups: Group, prices: list[int], limit: float, stages: tuple[str, ...] = ()
) -> tuple[Structure, Projector]:
    """A structure whose units of group g cost prices[g] each, and a budget of so much."""
    structure = Structure(groups, (), stages=stages)
    outputs = np.hstack([np.eye(len(groups), dtype=np.int64), np.zeros((len(groups), 1), np.int64)])
    inputs = np.hstack([np.zeros((len(groups), len(groups)), np.int64), np.array(prices, np.int64)[:, None]])
    cost = QuadraticCost.bilinear("weights", "weights", outputs, inputs, np.ones(len(groups), np.int64))
    return structure, Projector(structure, Budget(f"weights:{limit}", cost, limit, float(cost(structure.units))))


def toy(  # noqa: PLR0913 - keyword-only settings
    structure: Structure,
    projector: Projector,
    folder: Path,
    *,
    loss: Callable[[Kept], float],
    limit: int,
    scores: Mapping[str, Tensor] | None = None,
    race: Race | None = None,
    noise: float = 0.0,
    seen: list[Any] | None = None,
) -> Problem:
    """A problem whose reward is −loss; blocks of samples scatter around it by `noise`, for all plans alike."""
    scatter = noise * np.random.default_rng(7).normal(size=(BATCHES, BLOCKS))

    def value(kept: Kept, batch: int, block: int) -> float:
        return float(scatter[batch, block]) - loss(kept)

    objective = Objective(
        costs={projector.budget.cost.name: projector.budget.cost},
        budget=projector.budget,
        score=judge.kl,
        reward=reward.under_budget,
        batches=BATCHES,
        divisible=True,
        pool=InProcess(Table(value)),
        race=race,
    )
    record = (lambda *_: None) if seen is None else (lambda outcome, n, phase: seen.append((phase, outcome)))
    return Problem(
        task=TASK,
        spec=ProblemSpec(),
        structure=structure,
        projector=projector,
        objective=MeteredObjective(objective, limit=limit, record=record),
        scores=scores or {},
        features=np.zeros((len(structure.groups), 0)),
        errors={},
        costs=objective.costs,
        candidates=cast(Candidates, SimpleNamespace(reconstruction=Reconstruction({}, {}))),  # there are no networks
        held_out=TASK.data.test,
        measured={},
        folder=folder,
    )


def problem(ready: Problem, folder: Path, *, limit: int, seen: list[Any] | None = None) -> Problem:
    record = (lambda *_: None) if seen is None else (lambda outcome, n, phase: seen.append((phase, outcome)))
    return ready.limited(limit, record=record, folder=folder)


def structure_on(projector: Projector) -> Structure:
    """Groups with the projector's levels, and nothing else."""
    levels = [tuple(found.tolist()) for found in projector.levels]
    return Structure(tuple(Group(str(at), "channel", found[-1], (), found) for at, found in enumerate(levels)), ())


def filled(ready: Problem, kept: Any) -> bool:
    return filled_on(ready.projector, kept)


def filled_on(projector: Projector, kept: Any) -> bool:
    cost, limit = projector.budget.cost, projector.budget.limit
    ups = np.repeat(np.array(kept)[None], len(kept), axis=0)
    np.fill_diagonal(ups, projector.next_levels(np.array(kept)))
    return float(cost(np.array(kept))) <= limit and bool((cost(ups)[ups.diagonal() > kept] > limit).all())


levels = st.lists(st.tuples(st.floats(0, 10), st.integers(0, 40)), min_size=1, max_size=4)  # (loss, cost) of each level


def curves_of(structure: Structure, rng: np.random.Generator) -> dict[str, Curve]:
    """Any losses that fall with the units kept, in steps."""
    curves = {}
    for group in structure.groups:
        loss = np.sort(rng.uniform(0, rng.uniform(0.1, 3), len(group.levels)).round(3))[::-1]
        curves[group.name] = Curve(np.array(group.levels), tuple((loss - loss[-1]).tolist()), ())
    return curves


def distance(optimum: tuple[int, ...]) -> Any:
    """How far from the optimum: unimodal, and 0 there only."""

    def loss(kept: Kept) -> float:
        return float(sum(abs(k - best) for k, best in zip(kept, optimum, strict=True)))

    return loss


@st.composite
def structures(draw: st.DrawFn) -> tuple[Structure, Projector]:
    """Groups of every granularity at any prices, and any feasible budget."""
    kinds = draw(st.lists(st.sampled_from(["fine", "coarse", "depth", "2:4"]), min_size=1, max_size=6))
    groups: list[Group] = []
    for at, kind in enumerate(kinds):
        units = draw(st.integers(2, 40))
        groups.append(
            {
                "fine": weights(f"g{at}", units=units),
                "coarse": weights(f"g{at}", units=units, levels=(*range(3, units, 7), units)),
                "depth": depth(f"g{at}"),
                "2:4": weights(f"g{at}", units=4, levels=(2, 4)),
            }[kind]
        )
    prices = [draw(st.integers(1, 50)) for _ in groups]
    least = sum(price * group.levels[0] for price, group in zip(prices, groups, strict=True))
    most = sum(price * group.units for price, group in zip(prices, groups, strict=True))
    return additive(*groups, prices=prices, limit=draw(st.integers(least, most)))


def scores_with(outliers: int) -> Tensor:
    """[OUTPUTS, INPUTS] with so many scores far above the mean."""
    scores = torch.ones(OUTPUTS * INPUTS)
    scores[:outliers] = 20.0
    return scores.reshape(OUTPUTS, INPUTS)


def blocks(
    folder: Path,
    outliers: Sequence[tuple[int, ...]],
    *,
    density: float = 0.5,
    scores: object = None,
    loss: Callable[[Kept], float] = sum,
    limit: int = 3,
) -> Problem:
    """A transformer's blocks, one for each entry, with a matrix for each of its numbers of outliers."""
    names = [f"h.{b}.m{m}" for b, matrices in enumerate(outliers) for m in range(len(matrices))]
    counts = [count for matrices in outliers for count in matrices]
    groups = [
        Group(name, "weight", INPUTS, (), tuple(range(1, INPUTS + 1)), compared=(Comparison(name, INPUTS),))
        for name in names
    ]
    found, projector = additive(*groups, prices=[OUTPUTS] * len(groups), limit=density * OUTPUTS * INPUTS * len(groups))
    layers = tuple(Layer(name, "linear", OUTPUTS, INPUTS, 1, 1, 1, False, False) for name in names)
    structure = Structure(found.groups, layers, stages=tuple(f"h.{b}" for b in range(len(outliers))))
    known = {name: scores_with(count) for name, count in zip(names, counts, strict=True)} if scores is None else scores
    return toy(structure, projector, folder, loss=loss, limit=limit, scores=known)  # type: ignore[arg-type]
