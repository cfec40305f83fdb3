"""Figure 5: what racing costs beside judging every plan on all samples, and what it loses."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from autoprune.evaluation.objective import Objective
from autoprune.evaluation.outcome import Outcome
from autoprune.plan import PruningPlan
from experiments.benchmark.bench import Bench, Ready, plans_around, random_plans, sensitivity
from experiments.benchmark.row import Goal, Row
from experiments.configuration import composed, instantiate_part

TASKS = ("fashion_resnet20", "fashion_plain20", "fashion_mobilenet")
MOST_REGRET = 0.01  # on average
GOAL = Goal(0.2, 0.07)
Draw = Callable[[int, np.random.Generator], list[PruningPlan]]


@dataclass(frozen=True, slots=True)
class Raced:
    """One batch of plans, raced and judged in full. regret: of the winner's score, relative to the best one's.

    seconds, warm, samples: raced ÷ full. Where shapes are met for the first time, kernels are made for them: `seconds`
    counts that on both sides, as a search pays for it, `warm` on neither.
    """

    task: str
    seconds: float
    warm: float
    samples: float
    regret: float


def racing(bench: Bench) -> list[Row]:
    """Figure 5, for each task at its own budget."""
    rng, found = bench.rng(5), dict[str, list[Raced]]()
    large, small = bench.size(64, 8), bench.size(10, 4)
    for task in TASKS[:1] if bench.quick else TASKS:
        ready = bench.ready(task)
        projector = ready.problem.projector
        centre = sensitivity(ready, projector)
        draws: dict[str, Draw] = {
            "random plans": partial(random_plans, ready, projector),
            "plans around the sensitivity plan": partial(plans_around, ready, projector, centre),
        }
        for where, draw in draws.items():
            for size, times in ((large, bench.times(2)), (small, bench.times(5))):
                batches = [_raced(ready, draw(size, rng)) for _ in range(times)]
                found.setdefault(f"{where}, {size} at once", []).extend(batches)
            alone = _raced(ready, draw(large, rng), one_by_one=True)
            found.setdefault(f"{where}, {large} one by one, each against the best so far", []).append(alone)
    return [_row(label, raced) for label, raced in found.items()]


def _row(label: str, found: Sequence[Raced]) -> Row:
    warm, regrets, samples = ([getattr(raced, name) for raced in found] for name in ("warm", "regret", "samples"))
    mean = float(np.mean(regrets))
    note = f"regret {100 * mean:.2f} % mean, {100 * max(regrets):.2f} % worst; samples {np.median(samples):.3f}, "
    note += f"time with kernels made before {np.median(warm):.3f}"
    detail = {name: [getattr(raced, name) for raced in found] for name in Raced.__slots__}
    seconds = tuple(raced.seconds for raced in found)
    return Row(label, "×", seconds, min(seconds), GOAL, mean <= MOST_REGRET, note, detail)


def _raced(ready: Ready, plans: list[PruningPlan], *, one_by_one: bool = False) -> Raced:
    """Three times with objectives that know nothing: raced, which makes the kernels for these plans, full, raced."""
    race = instantiate_part(composed(), "evaluation").race
    contest = _one_by_one if one_by_one else _at_once
    raced, cold = _timed(lambda: contest(ready.objective(race=race), plans))
    full, whole = _timed(lambda: ready.objective(race=None).evaluate(plans, whole=True))
    _, warm = _timed(lambda: contest(ready.objective(race=race), plans))
    winner = max((i for i, outcome in enumerate(raced) if outcome.whole), key=lambda i: raced[i].reward)
    best = max(outcome.score for outcome in full)
    return Raced(
        ready.problem.task.name,
        seconds=cold / (whole + max(0.0, cold - warm)),
        warm=warm / whole,
        samples=sum(o.metrics.samples for o in raced) / sum(o.metrics.samples for o in full),
        regret=(best - full[winner].score) / abs(best),
    )


def _at_once(objective: Objective, plans: Sequence[PruningPlan]) -> list[Outcome]:
    return objective.evaluate(plans)


def _one_by_one(objective: Objective, plans: Sequence[PruningPlan]) -> list[Outcome]:
    """Each against the best so far, as MeteredObjective does."""
    best: Outcome | None = None
    outcomes = []
    for plan in plans:
        [outcome] = objective.evaluate([plan], against=None if best is None else best.plan)
        if outcome.whole and (best is None or outcome.reward > best.reward):
            best = outcome
        outcomes.append(outcome)
    return outcomes


def _timed(call: Callable[[], list[Outcome]]) -> tuple[list[Outcome], float]:
    start = time.perf_counter()
    return call(), time.perf_counter() - start
