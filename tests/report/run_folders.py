"""A run folder as the pipeline writes it, made up: ResNet-20's groups, a search that learns, two baselines."""

from pathlib import Path
from typing import Any

import numpy as np

from autoprune.runs import RunFolder, machine, versions

GROUPS = {
    "conv1": 16,
    **{f"layer1.{i}.conv1": 16 for i in range(3)},
    "layer2.0.conv2": 32,
    **{f"layer2.{i}.conv1": 32 for i in range(3)},
    "layer3.0.conv2": 64,
    **{f"layer3.{i}.conv1": 64 for i in range(3)},
}
DENSE = {"macs": 31_021_952.0, "params": 272_186.0, "bytes": 1_099_688.0}
BUDGET = {
    "text": "macs:0.35", "cost": "macs", "unit": "MACs",
    "limit": 0.35 * DENSE["macs"], "dense": DENSE["macs"], "relative": 0.35,
}  # fmt: skip
UNITS = np.array(list(GROUPS.values()))
UNIFORM, SENSITIVITY, SEARCHED = (
    np.round(UNITS * density).astype(int)
    for density in (
        np.full(12, 0.59),
        np.array([0.94, 0.5, 0.44, 0.38, 0.81, 0.53, 0.47, 0.44, 0.78, 0.61, 0.5, 0.28]),
        np.array([0.88, 0.31, 0.63, 0.44, 0.91, 0.66, 0.31, 0.5, 0.84, 0.72, 0.38, 0.16]),
    )
)


def write_run(path: Path, *, evaluations: int = 300, curves: bool = True, finished: bool = True) -> RunFolder:
    """`evaluations` are spent in the search; an unfinished run stops halfway."""
    rng = np.random.default_rng(0)
    folder = RunFolder.create(path)
    folder.write_text("config.yaml", "task: fashion_resnet20\nagent:\n  name: ppo\nbudget: macs:0.35\n")
    folder.write_json("run.json", {
        "name": "fashion_resnet20-ppo-0", "task": "fashion_resnet20", "agent": "ppo", "seed": 0, "budget": BUDGET,
        "overrides": ["agent=ppo", "budget=macs:0.35"], "started": "2026-11-22T17:00:00+00:00",
        "versions": versions(), "machine": machine(),
        "data": {role: f"{i}f" * 16 for i, role in enumerate(("train", "calibration", "search", "test"))},
    })  # fmt: skip
    folder.write_json("structure.json", {
        "groups": [
            {"name": n, "granularity": "channel", "units": u, "levels": list(range(1, u + 1)), "layers": [n]}
            for n, u in GROUPS.items()
        ],
        "unprunable": {"fc": "the network's output"},
        "dense": DENSE,
    })  # fmt: skip
    _write_search(folder, rng, evaluations=evaluations if finished else evaluations // 2)
    if not finished:
        return folder
    if curves:
        folder.write_json("curves.json", {name: _curve(rng, units) for name, units in GROUPS.items()})
    for kept, accuracy in ((UNIFORM, 0.562), (SENSITIVITY, 0.707)):
        folder.append("history.jsonl", {"evaluation": None, "phase": "baseline", **_outcome(kept, accuracy, 0.3498)})
    for name, floor in (("uniform", 0.33), ("sensitivity", 0.30), ("searched", 0.29)):
        for step in range(10, 321, 10):
            loss = floor + 0.9 * np.exp(-step / 60) + rng.normal(0, 0.02)
            folder.append("recover.jsonl", {"plan": name, "step": step, "steps": 320, "loss": loss})
    folder.write_json("result.json", _result(evaluations))
    return folder


def _write_search(folder: RunFolder, rng: np.random.Generator, *, evaluations: int) -> None:
    best, elapsed, center = None, 0.0, UNIFORM / UNITS
    for i in range(1, evaluations + 1):
        curve = i <= 36
        progress = i / 300
        center = center + 0.02 * (SEARCHED / UNITS - center)
        noise = rng.normal(0, 0.15 * (1.2 - progress), 12)
        kept = np.clip(np.round(UNITS * (center + noise)), 1, UNITS).astype(int)
        if curve:
            kept = UNITS.copy()
            kept[i % 12] = UNITS[i % 12] * (1 + i // 12) // 5
        distance = float(np.abs(kept / UNITS - SEARCHED / UNITS).mean())
        accuracy = 0.93 - 0.1 * rng.random() if curve else max(0.1, 0.77 - 2.2 * distance + rng.normal(0, 0.02))
        outcome = _outcome(kept, accuracy, 0.97 - 0.2 * rng.random() if curve else 0.35 - 0.002 * rng.random())
        if not curve:
            best = outcome["score"] if best is None else max(best, outcome["score"])
        elapsed += outcome["seconds"]
        phase = "curves" if curve else "search"
        folder.append("history.jsonl", {"evaluation": i, "phase": phase, **outcome, "elapsed": elapsed, "best": best})


def _outcome(kept: Any, accuracy: float, share: float) -> dict[str, Any]:
    kl = 2.5 * (0.95 - accuracy) ** 1.2
    params = DENSE["params"] * float((kept * UNITS).sum() / (UNITS**2).sum())
    return {
        "kept": kept, "accuracy": accuracy, "loss": kl + 0.2, "kl": kl, "agreement": accuracy + 0.01, "samples": 1500,
        "cost": {"macs": share * DENSE["macs"], "params": params, "bytes": 4 * params},
        "score": -kl, "reward": -kl, "feasible": share <= 0.35, "seconds": 0.35,
    }  # fmt: skip


def _curve(rng: np.random.Generator, units: int) -> list[dict[str, Any]]:
    steepness = rng.uniform(2, 9)
    levels = [max(1, units * i // 5) for i in range(1, 5)]
    return [
        {"kept": k, **{m: 0.93 * (1 - np.exp(-steepness * k / units)) for m in ("accuracy", "loss", "kl", "agreement")}}
        for k in levels
    ]


def _result(evaluations: int) -> dict[str, Any]:
    def network(kept: Any, share: float, before: float, after: float | None, latency: float) -> dict[str, Any]:
        outcome = _outcome(kept, before, share)
        metrics = {key: outcome[key] for key in ("accuracy", "loss", "kl", "agreement", "samples")}
        return {
            "plan": {n: {"units": u, "kept": int(k)} for (n, u), k in zip(GROUPS.items(), kept, strict=True)},
            "cost": outcome["cost"],
            "proxy": metrics,
            "held_out": {**metrics, "accuracy": before - 0.004},
            "before": {"accuracy": before - 0.006, "loss": outcome["loss"]},
            "after": None if after is None else {"accuracy": after, "loss": 0.31},
            "latency_ms": {
                "torch": {"median": 1.9 * latency + 0.8, "low": 1.88 * latency + 0.8, "high": 2 * latency + 0.8},
                "onnxruntime": {"median": 0.56 * latency, "low": 0.55 * latency, "high": 0.6 * latency},
            },
            "file_bytes": {
                "safetensors": int(outcome["cost"]["bytes"]) + 6000,
                "onnx": int(outcome["cost"]["bytes"]) + 11000,
            },
        }

    return {
        "task": "fashion_resnet20", "agent": "ppo", "seed": 0, "budget": BUDGET, "chosen": "searched",
        "evaluations": {"limit": evaluations, "spent": evaluations},
        "seconds": {"load": 2.1, "search": 104.2, "baselines": 15.5, "recover": 71.0, "export": 6.2, "total": 199.0},
        "networks": {
            "dense": network(UNITS, 1.0, 0.934, None, 1.0),
            "searched": network(SEARCHED, 0.3497, 0.768, 0.9227, 0.53),
            "uniform": network(UNIFORM, 0.3498, 0.562, 0.9204, 0.61),
            "sensitivity": network(SENSITIVITY, 0.3499, 0.707, 0.9211, 0.57),
        },
    }  # fmt: skip
