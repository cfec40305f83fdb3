"""The table of the project's own README: test accuracy of the plans that matter most."""

from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.comparison.run_summary import RunSummary
from experiments.ladder.table import interval_of_mean
from experiments.readme import table

AGENTS = {
    "uniform": "uniform",
    "torch_pruning": "Torch-Pruning",
    "sensitivity": "sensitivity",
    "model_based": "searched (`model_based`)",
}


def front_page(record: Mapping[str, Any], trials: Sequence[RunSummary], dense: Mapping[str, float]) -> str:
    """dense: task → test accuracy of its trained network."""
    rows = []
    for task, budget in dict.fromkeys(trial.cell for trial in trials):
        here = [trial for trial in trials if trial.cell == (task, budget)]
        for regime in ("post-training", "recovered"):
            shown = [_accuracy([t for t in here if t.agent == agent], regime) for agent in AGENTS]
            if any(shown):
                first = f"`{task}`, `{budget}`" if regime == "post-training" else ""
                whole = f"{100 * dense[task]:.1f}" if first else ""
                rows.append([first, regime, whole, *(each or "–" for each in shown)])
    most = {t.budget: max(other.seed + 1 for other in trials if other.budget == t.budget) for t in trials}
    seeds = " and ".join(f"{number} seeds at `{budget}`" for budget, number in most.items())
    recovered = max((trial.seed + 1 for trial in trials if trial.own.recovered is not None), default=0)
    note = (
        f"Test accuracy in %, mean over at most {seeds}, {recovered} recovered, with a 95 % bootstrap interval; "
        f"{trials[0].evaluations} evaluations each, single-group ones included. Recovered: after equal training from "
        "the same seed. Torch-Pruning: the best of six criteria and of two ways to rank, with BatchNorm's statistics "
        f"measured again; its network is not repaired otherwise. Made on {record['date'][:10]} at commit "
        f"{record['commit']} by `{record['command']}`; {record['machine']['processor']}, {record['machine']['cores']} "
        "cores. Every agent, and every value: [experiments/ladder](experiments/ladder/README.md)."
    )
    return "\n".join([*table(("task, budget", "", "dense", *AGENTS.values()), rows), "", note, ""])


def _accuracy(trials: Sequence[RunSummary], regime: str) -> str | None:
    """None where there is none."""
    found = [trial.own.test if regime == "post-training" else trial.own.recovered for trial in trials]
    values = [100 * metrics["accuracy"] for metrics in found if metrics]
    if not values:
        return None
    mean, low, high = interval_of_mean(values)
    return f"{mean:.1f}" if low is None or high is None else f"{mean:.1f} [{low:.1f}, {high:.1f}]"
