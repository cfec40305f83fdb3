"""Agents by their scores: intervals, pairs, profiles. One regime at a time; the two are never mixed."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from autoprune.comparison.caveats import FEWEST
from autoprune.comparison.comparability import Cell
from autoprune.seeding import numpy_rng
from autoprune.statistics import (
    RESAMPLES,
    Estimate,
    Floats,
    improvement_estimate,
    iqm,
    iqm_estimate,
    profile,
    profile_band,
    resampled_counts,
    resampled_iqms,
    seeds_suffice,
    verdict,
)

THRESHOLDS = 61
Scores = Mapping[str, Mapping[Cell, Floats]]  # agent → cell → a score per seed
Json = dict[str, Any]


@dataclass(slots=True)
class Ranking:
    """Scores of agents, higher is better, and what can be said of them.

    Agents that have less than two seeds somewhere are not ranked: no interval can be given for them. Those that no seed
    changes need but one run.
    """

    regime: str
    """Part of every random generator's name."""
    scores: Scores
    """Agent → task and budget → a score for every seed."""
    deterministic: Collection[str] = ()
    """Agents whose plan no seed changes."""
    _draws: dict[tuple[str, tuple[Cell, ...]], Floats] = field(default_factory=dict)
    _counts: dict[tuple[str, Cell], Floats] = field(default_factory=dict)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Those in which any agent has scores."""
        return tuple(dict.fromkeys(cell for cells in self.scores.values() for cell in cells))

    @property
    def ranked(self) -> list[str]:
        """Best first; those that are not in every cell come after the others, as theirs is another average."""
        names = [
            name
            for name, cells in self.scores.items()
            if cells and (name in self.deterministic or min(map(len, cells.values())) >= FEWEST)
        ]
        means = {name: float(iqm(np.concatenate(list(self.scores[name].values())))) for name in names}
        return sorted(names, key=lambda name: (len(self.scores[name]) < len(self.cells), -means[name], name))

    def as_json(self) -> Json:
        """Agents, ranked ones first, every two of them with a cell in common, and their performance profiles."""
        ranked = self.ranked
        pairs = (self._pair(a, b) for a, b in itertools.combinations(ranked, 2))
        return {
            "agents": [
                self._agent(name, name in ranked) for name in [*ranked, *sorted(set(self.scores) - set(ranked))]
            ],
            "pairs": [pair for pair in pairs if pair is not None],
            "profile": self._profiles(ranked),
        }

    def _agent(self, name: str, ranked: bool) -> Json:
        cells = self.scores[name]
        strata, rng = list(cells.values()), self._rng("iqm", name)
        return {
            "label": name,
            "ranked": ranked,
            "deterministic": name in self.deterministic,
            "complete": len(cells) == len(self.cells),
            "iqm": asdict(iqm_estimate(strata, rng=rng)) if ranked else None,
            "cells": [
                {"cell": list(cell), "seeds": len(values), **asdict(iqm_estimate([values], rng=rng))}
                for cell, values in cells.items()
            ],
        }

    def _pair(self, a: str, b: str) -> Json | None:
        """Agent a against agent b over the cells that both have: the difference of their IQMs, and P(a > b)."""
        common = tuple(cell for cell in self.scores[a] if cell in self.scores[b])
        if not common:
            return None
        strata = [[self.scores[name][cell] for cell in common] for name in (a, b)]
        counts = self._resampled(a, common), self._resampled(b, common)
        return {
            "a": a,
            "b": b,
            **self._difference(a, b, common),
            "improvement": asdict(improvement_estimate(strata[0], strata[1], counts=counts)),
            "cells": [{"cell": list(cell), **self._difference(a, b, (cell,))} for cell in common],
        }

    def _difference(self, a: str, b: str, cells: tuple[Cell, ...]) -> Json:
        strata = [[self.scores[name][cell] for cell in cells] for name in (a, b)]
        value = float(iqm(np.concatenate(strata[0])) - iqm(np.concatenate(strata[1])))
        difference = Estimate.of(value, self._iqms(a, cells) - self._iqms(b, cells))
        return {
            "difference": asdict(difference),
            "verdict": verdict(difference, significant=seeds_suffice(strata[0], strata[1])),
        }

    def _profiles(self, names: Sequence[str]) -> Json:
        if not names:
            return {"thresholds": [], "agents": {}}
        every = np.concatenate([values for name in names for values in self.scores[name].values()])
        low, high = np.quantile(every, [0.02, 1.0])  # a few broken plans must not press all others together
        margin = 0.02 * (high - low) or 0.5
        thresholds = np.linspace(low - margin, high + margin, THRESHOLDS)
        profiles = {}
        for name in names:
            strata = list(self.scores[name].values())
            band = profile_band(strata, thresholds, counts=self._resampled(name, list(self.scores[name])))
            profiles[name] = {"share": profile(strata, thresholds), "low": band[0], "high": band[1]}
        return {"thresholds": thresholds, "agents": profiles}

    def _iqms(self, name: str, cells: tuple[Cell, ...]) -> Floats:
        """[resamples] of the agent's IQM over the cells."""
        if (name, cells) not in self._draws:
            rng = self._rng("draws", name, *map(str, cells))
            strata = [self.scores[name][cell] for cell in cells]
            self._draws[name, cells] = resampled_iqms(strata, rng=rng, resamples=RESAMPLES)
        return self._draws[name, cells]

    def _resampled(self, name: str, cells: Sequence[Cell]) -> list[Floats]:
        """Per cell [resamples, seeds]: the same resamples whoever the agent is compared with."""
        for cell in cells:
            if (name, cell) not in self._counts:
                rng = self._rng("counts", name, *cell)
                self._counts[name, cell] = resampled_counts(len(self.scores[name][cell]), rng=rng)
        return [self._counts[name, cell] for cell in cells]

    def _rng(self, *purpose: str) -> np.random.Generator:
        """By who is asked about, so that one agent more changes nothing for the others."""
        return numpy_rng(0, "/".join(("comparison", self.regime, *purpose)))
