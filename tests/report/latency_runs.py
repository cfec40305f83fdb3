"""Runs whose latencies are known."""

from pathlib import Path
from typing import Any

from autoprune.runs import RunFolder


def write_latency_run(folder: Path, budget: str, ms: float, accuracy: float, **changes: Any) -> None:
    """A complete run whose network takes so long, where the dense one takes 2 ms."""
    dense_ms = changes.pop("dense_ms", 2.0)
    predicted = changes.pop("predicted", 0.9)
    trained = changes.pop("recovered", accuracy + 0.1)
    cost = budget.partition(":")[0]

    def network(ms: float, macs: float, before: float, after: float) -> dict[str, Any]:
        latency = {"median": ms, "low": ms, "high": ms}
        return {
            "plan": {"conv": {"units": 100, "kept": int(macs)}},
            "cost": {"macs": macs, **({"latency": ms * predicted} if cost == "latency" else {})},
            "before": {"accuracy": before},
            "after": {"accuracy": after},
            "latency_ms": {"onnxruntime": latency, "torch": latency},
        }

    result = {
        "task": "digits",
        "agent": "evolution",
        "chosen": "searched",
        "seed": 0,
        "budget": {"text": budget, "cost": cost, "unit": "", "limit": 1.0, "dense": 2.0, "relative": 0.5},
        "networks": {"dense": network(dense_ms, 100, 0.9, 0.9), "searched": network(ms, 40, accuracy, trained)},
        **changes,
    }
    folder.mkdir(parents=True)
    RunFolder(folder).write_json("run.json", {"name": folder.name})
    RunFolder(folder).write_json("result.json", result)
