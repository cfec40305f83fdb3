"""Problems small enough to try every plan: losses that fall as units stay, add up or do not, and a known optimum."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoprune.cost.model import FloatArray
from autoprune.cost.projection import Projector
from autoprune.plan import PruningPlan
from autoprune.prior.uniform_plan import uniform_plan
from autoprune.problem.problem import Problem
from autoprune.structure.groups import Group, Structure
from tests.evaluation.tables import Kept
from tests.search.toys import additive, depth, toy, weights


@dataclass(frozen=True)
class KnownProblem:
    """A structure, its budget, and what is lost when shares x [..., groups] of the groups' units are gone."""

    structure: Structure
    projector: Projector
    loses: Callable[[FloatArray], FloatArray]

    def loss(self, kept: Kept) -> float:
        return float(self.loses(1 - np.array(kept) / self.structure.units))

    def problem(self, folder: Path, *, limit: int, seen: list[Any] | None = None, **options: Any) -> Problem:
        scores = options.pop("scores", self.scores())
        return toy(
            self.structure, self.projector, folder, loss=self.loss, limit=limit, seen=seen, scores=scores, **options
        )

    def scores(self) -> dict[str, Tensor]:
        """What each unit alone would cost, as a good criterion has it."""
        found = {}
        for at, group in enumerate(self.structure.groups):
            kept = np.repeat(self.structure.units[None], group.units + 1, axis=0)
            kept[:, at] = np.arange(group.units, -1, -1)
            lost = np.diff(self.loses(1 - kept / self.structure.units))  # of the least important unit first
            found[group.name] = torch.tensor(np.maximum(lost[::-1], 0).copy())
        return found

    def regret(self, plan: PruningPlan) -> float:
        """0 for the best plan, 1 for the uniform one."""
        uniform, best = self.loss(uniform_plan(self.structure, self.projector).kept), least_loss(self)
        assert uniform > best
        return (self.loss(plan.kept) - best) / (uniform - best)


@cache
def least_loss(known: KnownProblem) -> float:
    """Of all plans inside the budget."""
    every = np.array(list(itertools.product(*(group.levels for group in known.structure.groups))))
    feasible = every[known.projector.budget.cost(every) <= known.projector.budget.limit]
    return float(known.loses(1 - feasible / known.structure.units).min())


def _known(
    groups: list[Group], prices: list[int], share: float, loses: Callable[[FloatArray], FloatArray]
) -> KnownProblem:
    limit = int(share * sum(price * group.units for price, group in zip(prices, groups, strict=True)))
    return KnownProblem(*additive(*groups, prices=prices, limit=limit), loses)


def _separable(worth: list[float], power: float = 2.0) -> Callable[[FloatArray], FloatArray]:
    return lambda gone: (np.array(worth) * gone**power).sum(axis=-1)


def _chain(worth: list[float], coupling: float) -> Callable[[FloatArray], FloatArray]:
    """Groups that follow each other hurt more together."""
    alone = _separable(worth)
    return lambda gone: alone(gone) + coupling * (gone[..., 1:] * gone[..., :-1]).sum(axis=-1)


def _deceptive(worth: list[float], together: float) -> Callable[[FloatArray], FloatArray]:
    """The first half of the groups cost little alone, and much when more than one of them goes."""
    alone, half = _separable(worth), len(worth) // 2

    def loses(gone: FloatArray) -> FloatArray:
        first = gone[..., :half]
        return alone(gone) + together * (first.sum(axis=-1) - first.max(axis=-1)) ** 2

    return loses


WIDTHS = [weights(f"g{i}", units=8) for i in range(5)]
BLOCKS = [depth(f"b{i}") for i in range(12)]
PATTERNS = [weights(f"m{i}", units=4, levels=(2, 4)) for i in range(10)]
MIXED = [weights("w0", units=8), weights("w1", units=8), *PATTERNS[:3], *BLOCKS[:4]]

KNOWN = {
    "few": _known([weights("g0", units=4), weights("g1", units=4)], [1, 1], 0.5, _separable([1.0, 3.0])),
    "separable": _known(WIDTHS, [3, 2, 4, 5, 3], 0.5, _separable([9.0, 1.0, 4.0, 0.5, 3.0])),
    "chain": _known(WIDTHS, [3, 2, 4, 5, 3], 0.5, _chain([5.0, 1.0, 2.0, 0.5, 3.0], 6.0)),
    "deceptive": _known(
        [weights(f"g{i}", units=6) for i in range(6)], [4, 4, 4, 3, 3, 3], 0.5,
        _deceptive([0.1, 0.2, 0.3, 1.5, 1.0, 2.0], 5.0),
    ),
    "knapsack": _known(
        BLOCKS, [7, 3, 9, 5, 8, 4, 6, 7, 3, 8, 5, 6], 0.6,
        _separable([3.0, 1.0, 2.0, 4.0, 1.5, 0.5, 5.0, 2.5, 3.5, 0.8, 1.2, 2.2]),
    ),
    "blocks in a chain": _known(
        BLOCKS, [5] * 12, 0.67, _chain([3.0, 1.0, 2.0, 4.0, 1.5, 0.5, 5.0, 2.5, 3.5, 0.8, 1.2, 2.2], 2.0)
    ),
    "2:4": _known(PATTERNS, [3] * 10, 0.75, _chain([3.0, 1.0, 2.0, 4.0, 1.5, 0.5, 5.0, 2.5, 3.5, 0.8], 4.0)),
    "mixed": _known(
        MIXED, [3, 4, 5, 6, 4, 9, 8, 12, 10], 0.6, _chain([4.0, 1.0, 2.0, 0.5, 3.0, 1.5, 2.5, 0.7, 1.8], 1.0)
    ),
}  # fmt: skip
