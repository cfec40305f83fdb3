"""Folders of fidelity studies that nobody ran, with answers that are known."""

from pathlib import Path
from typing import Any

import numpy as np

from autoprune.evaluation import judge
from autoprune.fidelity.proxies import single_plans
from autoprune.fidelity.summary import summarise
from autoprune.fidelity.truth import trials
from autoprune.plan import PruningPlan
from autoprune.runs import RunFolder, machine, versions
from autoprune.structure.groups import Group, Structure

SCORES = {"accuracy": judge.accuracy, "loss": judge.loss, "kl": judge.kl, "agreement": judge.agreement}
UNITS = (16, 32, 64)
BUDGETS = {"macs:0.35": (16, 5), "macs:0.175": (8, 3)}  # plans, repeated
LENGTHS, SEEDS = (0, 30, 150), 3
Json = dict[str, Any]


def write_study(path: Path, *, spread: float, noise: float, done: float = 1.0) -> RunFolder:
    """Plans whose accuracies differ by `spread` and whose seeds differ by `noise`; `done` is the part recovered."""
    rng = np.random.default_rng(0)
    folder = RunFolder.create(path)
    folder.write_json("run.json", {
        "name": "fashion_resnet20-fidelity", "task": "fashion_resnet20", "seed": 0, "commit": "abc1234",
        "started": "2026-11-22T17:00:00+00:00", "overrides": ["plans=16"], "versions": versions(),
        "machine": machine(), "data": {"search": "1f" * 8},
    })  # fmt: skip
    folder.write_json("study.json", {
        "task": "fashion_resnet20", "units": UNITS, "default": {"repair": "batch_norm", "score": "kl"},
        "repairs": ["none", "batch_norm"], "lengths": LENGTHS, "seeds": SEEDS, "conditions": {},
        "samples": {"proxy": 500, "held_out": 2500, "test": 3500},
        "dense": {role: _metrics(0.934) for role in ("held_out", "test")},
        "levels": [{"budget": b, "plans": n, "repeated": r, "limit": {}} for b, (n, r) in BUDGETS.items()],
    })  # fmt: skip
    plans = {
        budget: [tuple(int(rng.integers(1, units + 1)) for units in UNITS) for _ in range(n)]
        for budget, (n, _) in BUDGETS.items()
    }
    folder.write_json("plans.json", plans)
    for budget, (n, repeated) in BUDGETS.items():
        good = rng.normal(0, 1, n)
        _write_proxies(folder, budget, good, rng)
        wanted = list(trials(budget, plans=n, steps=LENGTHS, seeds=SEEDS, repeated=repeated))
        for trial in wanted[: round(done * len(wanted))]:
            chance = rng.normal(0, noise) if trial.steps else 0.0
            accuracy = 0.9 + spread * good[trial.plan] + chance
            metrics = {"held_out": _metrics(accuracy), "test": _metrics(accuracy - 0.004)}
            folder.append("truth.jsonl", {**trial._asdict(), "kept": plans[budget][trial.plan], **metrics})
            folder.append("seconds.jsonl", {**trial._asdict(), "seconds": 0.1 + 0.2 * trial.steps})
    groups = tuple(Group(f"conv{i}", "channel", n, (), tuple(range(1, n + 1))) for i, n in enumerate(UNITS))
    structure = Structure(groups, ())
    of_main = [PruningPlan(structure.names, UNITS, kept) for kept in plans["macs:0.35"]]
    for plan in single_plans(structure, of_main):
        folder.append("singles.jsonl", {"kept": plan.kept, "kl": 0.1 * sum(plan.sparsity.values())})
    summarise(folder, scores=SCORES)
    return folder


def _write_proxies(folder: RunFolder, budget: str, good: Any, rng: np.random.Generator) -> None:
    for proxy, blur, seconds in (("none", 3.0, 0.271), ("batch_norm", 0.2, 0.324), ("short training", 0.1, 7.25)):
        for plan, value in enumerate(good):
            line = {"budget": budget, "proxy": proxy, "plan": plan, "seconds": seconds}
            folder.append("proxies.jsonl", {**line, **_metrics(0.5 + 0.05 * value + 0.05 * blur * rng.normal())})


def _metrics(accuracy: float) -> Json:
    return {"accuracy": accuracy, "loss": 1 - accuracy, "kl": 2 - 2 * accuracy, "agreement": accuracy, "samples": 500}
