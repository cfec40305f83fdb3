"""Five budgets: one search that serves them all, beside a search for each that has a fifth of its evaluations."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.evaluation.metered import POLICY
from autoprune.evaluation.outcome import Outcome
from autoprune.prior.uniform_plan import uniform_plan
from autoprune.statistics import Estimate
from experiments.cells import kept
from experiments.ladder.stages import Cell
from experiments.policies.runs import CELLS_KEPT, fresh, searched

BUDGETS = ("macs:0.4", "macs:0.2", "macs:0.3", "macs:0.5", "macs:0.65")  # the first is the run's own
TABLES, NETWORKS = ("table_plain", "table_residual"), ("fashion_plain20",)
EACH = 90  # evaluations for each budget
ONE = "one search of 450"
SHARED = ["agent=model_based", f"agent.budgets=[{','.join(BUDGETS[1:])}]"]
SEPARATE: Mapping[str, Sequence[str]] = {
    "five evolutions of 90": ["agent=evolution"],
    "five model_based of 90": ["agent=model_based"],
}
RESAMPLES = 5000
FEWEST_SEEDS = 3  # whose interval is shown


def keep(task: str, seed: int) -> None:
    """All searches of a task from one seed are kept.

    Args:
        task: Of conf/task.
        seed: Of the searches.
    """
    kept(CELLS_KEPT, f"budgets_{task}_one_{seed}", lambda: _one(task, seed))
    for variant, overrides in SEPARATE.items():
        for budget in BUDGETS:
            name = f"budgets_{task}_{variant}_{budget}_{seed}".replace(" ", "_").replace(":", "_")
            kept(CELLS_KEPT, name, partial(_alone, task, budget, overrides, seed))


def _one(task: str, seed: int) -> list[dict[str, Any]]:
    """One search: for each budget the best score met inside it, and that of the policy's own plan."""
    problem = fresh(Cell(task, BUDGETS[0])).problem
    budgets = [fresh(Cell(task, budget)).problem.projector.budget for budget in BUDGETS]
    best, own = [-np.inf] * len(BUDGETS), list[float]()

    def record(outcome: Outcome, evaluation: int, phase: str) -> None:
        if phase == POLICY:
            own.append(outcome.score)
        if outcome.failed is None and outcome.whole:
            kept_units = np.array(outcome.plan.kept)
            best[:] = [
                max(b, outcome.score) if at.meets(kept_units) else b for b, at in zip(best, budgets, strict=True)
            ]

    searched(problem, SHARED, seed, record, EACH * len(BUDGETS))
    last = own[-len(BUDGETS) :][::-1]  # the search's own budget is judged last
    return [{"best": b, "policy": p} for b, p in zip(best, last, strict=True)]


def _alone(task: str, budget: str, overrides: Sequence[str], seed: int) -> dict[str, Any]:
    best, own = [-np.inf], list[float]()

    def record(outcome: Outcome, evaluation: int, phase: str) -> None:
        if phase == POLICY:
            own.append(outcome.score)
        if outcome.feasible and outcome.whole:
            best[0] = max(best[0], outcome.score)

    searched(fresh(Cell(task, budget)).problem, overrides, seed, record, EACH)
    return {"best": best[0], "policy": max(own) if own else None}


def rows() -> list[dict[str, Any]]:
    """Returns a row for each task and way: mean scores over budgets and seeds, and how they compare with evolution."""
    return [row for task in (*TABLES, *NETWORKS) for row in _rows_of(task)]


def _rows_of(task: str) -> list[dict[str, Any]]:
    made = _scores(task)
    if not made:
        return []
    seeds = sorted(made[ONE])
    table = {way: np.array([made[way][seed] for seed in seeds]) for way in made}  # [seeds, budgets, best and policy]
    control = table["five evolutions of 90"][..., 0].mean(axis=1)
    answer = []
    for way, scores in table.items():
        row: dict[str, Any] = {"task": task, "way": way, "seeds": len(seeds)}
        for index, name in enumerate(("best", "policy")):
            each = scores[..., index].mean(axis=1)
            if np.isnan(each).any():
                row |= {name: None, f"{name}_less_evolutions": None}
                continue
            difference = _interval(each - control)
            row |= {name: float(each.mean()), f"{name}_less_evolutions": difference}
        answer.append(row)
    return answer


def _interval(differences: Any) -> list[float]:
    """Returns the mean and its 95 % bootstrap interval over seeds."""
    rng = np.random.default_rng(0)
    draws = rng.choice(differences, (RESAMPLES, len(differences))).mean(axis=1)
    estimate = Estimate.of(float(differences.mean()), draws)
    return [estimate.value, estimate.low, estimate.high]


def _scores(task: str) -> dict[str, dict[int, list[list[float]]]]:
    """Way → seed → for each budget the scores of the best plan and of the policy's: 0 uniform, 1 the best known."""
    raw: dict[str, dict[int, list[dict[str, Any]]]] = {way: {} for way in (ONE, *SEPARATE)}
    for seed in sorted(int(path.stem.rpartition("_")[2]) for path in CELLS_KEPT.glob(f"budgets_{task}_one_*.json")):
        paths = {
            way: [
                CELLS_KEPT / f"{f'budgets_{task}_{way}_{budget}_{seed}'.replace(' ', '_').replace(':', '_')}.json"
                for budget in BUDGETS
            ]
            for way in SEPARATE
        }
        if not all(path.exists() for each in paths.values() for path in each):
            continue
        raw[ONE][seed] = _read(CELLS_KEPT / f"budgets_{task}_one_{seed}.json")
        for way, each in paths.items():
            raw[way][seed] = [_read(path) for path in each]
    if not raw[ONE]:
        return {}
    ends = []
    for index, budget in enumerate(BUDGETS):
        cell = fresh(Cell(task, budget))
        uniform = cell.proxy(uniform_plan(cell.problem.structure, cell.problem.projector))
        met = max(run[index]["best"] for way in raw.values() for run in way.values())
        ends.append((uniform, met if cell.bounds is None else cell.bounds[0]))
    open_ = [
        index for index, (uniform, best) in enumerate(ends) if best > uniform
    ]  # elsewhere there is nothing to gain
    return {
        way: {seed: [_scaled(each[index], ends[index]) for index in open_] for seed, each in runs.items()}
        for way, runs in raw.items()
    }


def _scaled(run: Mapping[str, Any], ends: tuple[float, float]) -> list[float]:
    uniform, best = ends
    return [
        float("nan") if run[name] is None else (run[name] - uniform) / (best - uniform) for name in ("best", "policy")
    ]


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the README's table.

    Args:
        rows: As `rows` returns them.
    """
    if not rows:
        return "None was run yet."
    heads = ("task", "way", "best plans", "− five evolutions", "policies' own plans", "− five evolutions", "seeds")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [f"`{row['task']}`", row["way"]]
        for name in ("best", "policy"):
            if row[name] is None:
                cells += ["–", "–"]
                continue
            value, low, high = row[f"{name}_less_evolutions"]
            interval = f" [{low:+.3f}, {high:+.3f}]" if row["seeds"] >= FEWEST_SEEDS else ""
            cells += [f"{row[name]:.3f}", f"{value:+.3f}{interval}"]
        lines.append(f"| {' | '.join([*cells, str(row['seeds'])])} |")
    return "\n".join(lines)
