"""Agents by their scores: intervals, pairs, profiles. One regime at a time; the two are never mixed."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from autoprune.comparison.comparability import Cell
from autoprune.comparison.statistics import (
    RESAMPLES,
    Estimate,
    Floats,
    Verdict,
    estimate,
    improvement_estimate,
    iqm,
    iqm_estimate,
    profile,
    profile_band,
    resampled_counts,
    resampled_iqms,
    tells,
    verdict,
)
from autoprune.seeding import numpy_rng

FEWEST = 2  # seeds that have an interval
THRESHOLDS = 61
Values = Mapping[str, Mapping[Cell, Floats]]  # agent → cell → a score per seed
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pair:
    """Agent a against agent b over the cells that both have. difference: of their IQMs; improvement: P(a > b)."""

    a: str
    b: str
    difference: Estimate
    improvement: Estimate
    verdict: Verdict
    cells: Mapping[Cell, tuple[Estimate, Verdict]]


@dataclass(slots=True)
class Ranking:
    """Scores of agents, higher is better, and what can be said of them. name: of the regime.

    Agents that have less than two seeds somewhere are not ranked: no interval can be given for them.
    """

    name: str
    values: Values
    draws: dict[tuple[str, tuple[Cell, ...]], Floats] = field(default_factory=dict)
    counts: dict[tuple[str, Cell], Floats] = field(default_factory=dict)

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(dict.fromkeys(cell for cells in self.values.values() for cell in cells))

    @property
    def ranked(self) -> list[str]:
        """Best first; those that are not in every cell come after the others, as theirs is another average."""
        names = [name for name, cells in self.values.items() if cells and min(map(len, cells.values())) >= FEWEST]
        return sorted(names, key=lambda name: (len(self.values[name]) < len(self.cells), -self._iqm(name), name))

    def unranked(self) -> dict[str, list[Cell]]:
        """Agent → where it has one seed only."""
        few = {n: [c for c, v in cells.items() if len(v) < FEWEST] for n, cells in self.values.items()}
        return {name: cells for name, cells in few.items() if cells}

    def pairs(self) -> list[Pair]:
        """Every two ranked agents with a cell in common, the better ranked first."""
        found = (self.pair(a, b) for a, b in itertools.combinations(self.ranked, 2))
        return [pair for pair in found if pair is not None]

    def pair(self, a: str, b: str) -> Pair | None:
        common = tuple(cell for cell in self.values[a] if cell in self.values[b])
        if not common:
            return None
        alone = {cell: self._difference(a, b, (cell,)) for cell in common}
        difference, said = self._difference(a, b, common)
        strata = [[self.values[name][cell] for cell in common] for name in (a, b)]
        counts = self._counts(a, common), self._counts(b, common)
        chance = improvement_estimate(strata[0], strata[1], counts=counts)
        return Pair(a, b, difference, chance, said, alone)

    def as_json(self) -> Json:
        ranked = self.ranked
        return {
            "agents": [
                self._agent(name, name in ranked) for name in [*ranked, *sorted(set(self.values) - set(ranked))]
            ],
            "pairs": [
                {
                    **{name: getattr(pair, name) for name in ("a", "b", "verdict")},
                    "difference": asdict(pair.difference),
                    "improvement": asdict(pair.improvement),
                    "cells": [
                        {"cell": list(cell), "difference": asdict(difference), "verdict": said}
                        for cell, (difference, said) in pair.cells.items()
                    ],
                }
                for pair in self.pairs()
            ],
            "profile": self._profiles(ranked),
        }

    def _difference(self, a: str, b: str, cells: tuple[Cell, ...]) -> tuple[Estimate, Verdict]:
        exact = float(iqm(self._pooled(a, cells)) - iqm(self._pooled(b, cells)))
        found = estimate(exact, self._draws(a, cells) - self._draws(b, cells))
        seeds = [(len(self.values[a][cell]), len(self.values[b][cell])) for cell in cells]
        return found, verdict(found, told=tells(seeds))

    def _agent(self, name: str, ranked: bool) -> Json:
        cells = self.values[name]
        strata, rng = list(cells.values()), self._rng("iqm", name)
        return {
            "label": name,
            "ranked": ranked,
            "complete": len(cells) == len(self.cells),
            "iqm": asdict(iqm_estimate(strata, rng=rng)) if ranked else None,
            "cells": [
                {"cell": list(cell), "seeds": len(values), **asdict(iqm_estimate([values], rng=rng))}
                for cell, values in cells.items()
            ],
        }

    def _profiles(self, names: Sequence[str]) -> Json:
        if not names:
            return {"thresholds": [], "agents": {}}
        every = np.concatenate([values for name in names for values in self.values[name].values()])
        low, high = np.quantile(every, [0.02, 1.0])  # a few broken plans must not press all others together
        margin = 0.02 * (high - low) or 0.5
        thresholds = np.linspace(low - margin, high + margin, THRESHOLDS)
        found = {}
        for name in names:
            strata = list(self.values[name].values())
            band = profile_band(strata, thresholds, counts=self._counts(name, list(self.values[name])))
            found[name] = {"share": profile(strata, thresholds), "low": band[0], "high": band[1]}
        return {"thresholds": thresholds, "agents": found}

    def _draws(self, name: str, cells: tuple[Cell, ...]) -> Floats:
        """[resamples] of the agent's IQM over the cells."""
        if (name, cells) not in self.draws:
            rng = self._rng("draws", name, *map(str, cells))
            strata = [self.values[name][cell] for cell in cells]
            self.draws[name, cells] = resampled_iqms(strata, rng=rng, resamples=RESAMPLES)
        return self.draws[name, cells]

    def _counts(self, name: str, cells: Sequence[Cell]) -> list[Floats]:
        """Per cell [resamples, seeds]: the same resamples whoever the agent is compared with."""
        for cell in cells:
            if (name, cell) not in self.counts:
                rng = self._rng("counts", name, *cell)
                (self.counts[name, cell],) = resampled_counts([self.values[name][cell]], rng=rng)
        return [self.counts[name, cell] for cell in cells]

    def _pooled(self, name: str, cells: Sequence[Cell]) -> Floats:
        return np.concatenate([self.values[name][cell] for cell in cells])

    def _iqm(self, name: str) -> float:
        return float(iqm(self._pooled(name, list(self.values[name]))))

    def _rng(self, *purpose: str) -> np.random.Generator:
        """By who is asked about, so that one agent more changes nothing for the others."""
        return numpy_rng(0, "/".join(("comparison", self.name, *purpose)))
