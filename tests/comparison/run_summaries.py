"""Runs that no search made, with answers that are known."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autoprune.comparison.run_summary import AnytimeCurve, MeasuredPlan, RunIncumbent, RunSummary
from autoprune.plan import PruningPlan

GROUPS = {f"layer{i // 3 + 1}.{i % 3}.conv1": 16 * 2 ** (i // 3) for i in range(9)}
DENSE = {"macs": 1e7, "params": 1e5, "accuracy": 0.93}


def pruned(score: float, *, left: float = 0.35, recovered: float | None = None, density: float = 0.5) -> MeasuredPlan:
    kept = tuple(max(1, round(units * density)) for units in GROUPS.values())
    accuracy = float(np.clip(0.93 + 0.4 * score, 0.1, 0.93))
    return MeasuredPlan(
        plan=PruningPlan(tuple(GROUPS), tuple(GROUPS.values()), kept),
        score=score,
        held_out={"accuracy": accuracy, "kl": -score},
        test={"accuracy": accuracy - 0.005},
        recovered=None if recovered is None else {"accuracy": recovered},
        costs={"macs": left * DENSE["macs"], "params": 4e4},
    )


def summary(agent: str, score: float, *, seed: int = 0, recovered: float | None = None, **changes: Any) -> RunSummary:
    """Uniform's score is −1, the sensitivity-based plan's −0.5; recovered, both have an accuracy of 0.9."""
    known = None if recovered is None else 0.9
    left = float(str(changes.get("budget", "macs:0.35")).rpartition(":")[2])
    baselines = {
        "uniform": pruned(-1.0, left=left, recovered=known),
        "sensitivity": pruned(-0.5, left=left, recovered=known, density=0.55),
    }
    settings: dict[str, Any] = {
        "task": "digits", "agent": agent, "seed": seed, "budget": "macs:0.35", "evaluations": 300, "spent": 300,
        "own": pruned(score, left=left, recovered=recovered), "baselines": baselines, "dense": DENSE,
        "seconds": 60.0, "agent_seconds": 5.0,
    }  # fmt: skip
    return RunSummary(**(settings | changes))


def runs_of(scores: Mapping[str, Sequence[float]], **changes: Any) -> list[RunSummary]:
    """agent → one score for each seed."""
    return [summary(a, s, seed=i, **changes) for a, ours in scores.items() for i, s in enumerate(ours)]


def ladder(agents: Sequence[str], *, seeds: int = 6, cells: Sequence[tuple[str, str]] = (("digits", "macs:0.35"),),
           recovers: bool = True) -> list[RunSummary]:  # fmt: skip
    """A whole sweep, the earlier agents the better ones; with curves, plans and times that look like a real one's."""
    rng, found = np.random.default_rng(3), []
    for task, budget in cells:
        for place, agent in enumerate(agents):
            skill = 1 - place / (len(agents) + 3)
            for seed in range(seeds):
                score = -1 + 0.8 * float(np.clip(skill + 0.07 * rng.standard_normal(), -0.3, 1.1))
                curve, kept = _curve(rng, score, agent_seconds=1.0 + 3 * place), rng.normal(0.5, 0.12, len(GROUPS))
                recovered = 0.9 + 0.004 * skill + 0.003 * float(rng.standard_normal()) if recovers else None
                done = summary(agent, score, seed=seed, task=task, budget=budget, recovered=recovered, anytime=curve,
                             agent_seconds=1.0 + 3 * place, seconds=40 + 20 * float(rng.random()))  # fmt: skip
                shape = np.linspace(0.25, 0.9, len(GROUPS))[:: 1 if place % 2 else -1]
                density = np.clip(skill * shape + (1 - skill) * kept, 0.05, 1)
                plan = PruningPlan(
                    tuple(GROUPS),
                    tuple(GROUPS.values()),
                    tuple(max(1, int(u * d)) for u, d in zip(GROUPS.values(), density, strict=True)),
                )
                object.__setattr__(done.own, "plan", plan)
                found.append(done)
    return found


def _curve(rng: np.random.Generator, last: float, *, agent_seconds: float) -> AnytimeCurve:
    at = [1, 2, 4, 7, 12, 20, 35, 60, 95, 140, 190, 250, 300]
    left = np.exp(-np.linspace(0, 4.5, len(at)))
    scores = last - (2.4 + last) * left + np.append(0.03 * rng.standard_normal(len(at) - 1), 0)
    entries = [
        RunIncumbent(e, float(s) + 0.02, float(s), 0.2 * e, agent_seconds * e / 300)
        for e, s in zip(at, scores, strict=True)
    ]
    return AnytimeCurve(tuple(entries), {"uniform": -1.0, "sensitivity": -0.5})
