"""What a run writes down: each evaluation as it is made; structure, budget and curves as JSON."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from autoprune.evaluation.curves import Curve
from autoprune.evaluation.outcome import Metrics, Outcome
from autoprune.evaluation.prepare import Prepared
from autoprune.report.progress import StageProgress, search_note
from autoprune.runs import RunFolder
from autoprune.tracking import Tracker


class Recorder:
    """Writes an evaluation down, then tells the tracker and the screen."""

    def __init__(self, run: RunFolder, tracker: Tracker, progress: StageProgress, *, limit: int) -> None:
        self.run, self.tracker, self.progress, self.limit = run, tracker, progress, limit
        self.best: Outcome | None = None
        self.start = time.perf_counter()

    def __call__(self, outcome: Outcome, evaluation: int, phase: str) -> None:
        if outcome.feasible and (self.best is None or outcome.reward > self.best.reward):
            self.best = outcome
        best = None if self.best is None else self.best.score
        elapsed = time.perf_counter() - self.start
        record = {"evaluation": evaluation, "phase": phase, **outcome.as_json(), "elapsed": elapsed, "best": best}
        self.run.append("history.jsonl", record)
        metrics = {f"search/{key}": value for key, value in asdict(outcome.metrics).items()}
        metrics |= {"search/score": outcome.score, "search/reward": outcome.reward, "search/seconds": outcome.seconds}
        metrics |= {f"cost/{name}": value for name, value in outcome.cost.items()}
        if best is not None:
            metrics["search/best"] = best
        self.tracker.log(metrics, axis="evaluation", step=evaluation)
        note = search_note(best=best, score=outcome.score)
        self.progress.update(evaluation, of=self.limit, phase=phase, note=note)


def describe_structure(prepared: Prepared) -> dict[str, Any]:
    structure = prepared.structure
    return {
        "groups": [
            {
                "name": group.name,
                "granularity": group.granularity,
                "units": group.units,
                "levels": list(group.levels),
                "layers": list(dict.fromkeys(member.layer for member in group.members)),
            }
            for group in structure.groups
        ],
        "unprunable": structure.unprunable,
        "dense": {name: float(cost(structure.units)) for name, cost in prepared.costs.items()},
    }


def describe_budget(prepared: Prepared) -> dict[str, Any]:
    budget = prepared.projector.budget
    return {
        "text": budget.text,
        "cost": budget.cost.name,
        "unit": budget.cost.unit,
        "limit": budget.limit,
        "dense": budget.dense,
        "relative": budget.relative,
    }


def describe_curves(prepared: Prepared, curves: Mapping[str, Curve]) -> dict[str, Any]:
    return {
        name: [
            {"kept": int(kept), "loss_of_score": lost, "score": outcome.score, **shown(outcome.metrics)}
            for kept, lost, outcome in zip(curve.kept, curve.loss, curve.outcomes, strict=True)
        ]
        for name, curve in curves.items()
    }


def shown(metrics: Metrics) -> dict[str, float]:
    return {key: value for key, value in asdict(metrics).items() if key != "samples"}
