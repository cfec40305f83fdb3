"""Accuracy against measured latency over the runs of several budgets: what a front is made of."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.comparison.reading import job_folders
from autoprune.comparison.run_summary import agent_name
from autoprune.report.contents import NetworkReport, networks_of
from autoprune.runs import RunFolder

REGIMES = {"post_training": "Post-training", "recovered": "Recovered"}
RUNTIMES = ("onnxruntime", "torch")  # the first that every run has measured is the page's
LATENCY = "latency"
FAR = 0.15  # from what latency tables predict, which are off by a few percent


class NoFrontError(ValueError):
    """The runs are sound, but no front can be made of them."""


@dataclass(frozen=True, slots=True)
class RunPoint:
    """One run's own network; shares are of the dense network that was measured in the same run, in the same mood."""

    task: str
    """The task's name."""
    agent: str
    """The agent's name."""
    guided: str
    """The costs that its budget bounds, joined by +."""
    budget: str
    """As it was written."""
    seed: int
    """Of the run."""
    run: str
    """The name of its folder."""
    share: float
    """Its median latency over the dense network's."""
    dense_ms: float
    """The dense network's median latency, in milliseconds."""
    macs: float
    """Over the dense network's."""
    predicted_ms: float | None
    """What the run's device said of the network; None without a device."""
    predicted_share: float | None
    """What the device said of it, over what it said of the dense network; None without a device."""
    accuracy: Mapping[str, float]
    """Regime → on test data; a regime that the run has not is not there."""

    @property
    def ms(self) -> float:
        return self.share * self.dense_ms

    @property
    def series(self) -> tuple[str, str]:
        """What is one line of the front: the agent and what guides it."""
        return self.agent, self.guided

    @property
    def surprising(self) -> bool:
        """What was measured is far from what was predicted: the machine may have been busy."""
        return self.predicted_share is not None and abs(self.share / self.predicted_share - 1) > FAR


@dataclass(frozen=True, slots=True)
class Front:
    """The points of one task, on one runtime."""

    task: str
    """Its name."""
    runtime: str
    """torch or onnxruntime."""
    points: tuple[RunPoint, ...]
    """One for each run."""

    @property
    def dense_ms(self) -> float:
        """The median over runs."""
        return float(np.median([point.dense_ms for point in self.points]))

    @property
    def series(self) -> dict[tuple[str, str], list[RunPoint]]:
        """(agent, what guides it) → points, fastest first; latency-guided ones first."""
        names = sorted({point.series for point in self.points}, key=lambda name: (name[1] != LATENCY, name))
        by_share = sorted(self.points, key=lambda point: point.share)
        return {name: [point for point in by_share if point.series == name] for name in names}

    @property
    def regimes(self) -> list[str]:
        """Those of any run."""
        return [regime for regime in REGIMES if any(regime in point.accuracy for point in self.points)]


@dataclass(frozen=True, slots=True)
class AtEqualLatency:
    """What guiding by one cost brings over another at the same measured latency: points of test accuracy."""

    task: str
    """The task's name."""
    agent: str
    """The agent's name."""
    guided: str
    """The costs that its runs' budgets bound."""
    other: str
    """The costs that the other runs' budgets bound."""
    regime: str
    """post_training or recovered."""
    differences: tuple[float, ...]
    """One for each run of `guided` within the range of the `other` ones', whose accuracy in between is interpolated."""
    outside: int
    """Runs that are faster, or slower, than all of those."""


def fronts(folders: Sequence[Path]) -> list[Front]:
    """One for each task, of all complete runs in the folders.

    Raises:
        NoFrontError: There are no two budgets of one task, or no runtime that all runs have measured.
        FileNotFoundError: a folder is not there.
    """
    jobs = [job for folder in folders for job in job_folders(folder) if (job / "result.json").is_file()]
    results = {job: RunFolder.open(job).read_json("result.json") for job in jobs}
    if not results:
        raise NoFrontError(f"there is no complete run in {', '.join(map(str, folders))}")
    pairs = {job: _dense_and_own(result) for job, result in results.items()}
    everywhere = set.intersection(*({*dense.latency} & {*own.latency} for dense, own in pairs.values()))
    runtime = next((name for name in RUNTIMES if name in everywhere), None)
    if runtime is None:
        raise NoFrontError("there is no runtime on which all of these runs were measured")
    points = [_point(job.name, results[job], *pair, runtime) for job, pair in pairs.items()]
    by_task = {task: tuple(p for p in points if p.task == task) for task in dict.fromkeys(p.task for p in points)}
    several = [Front(task, runtime, ours) for task, ours in by_task.items() if len({p.budget for p in ours}) > 1]
    if not several:
        raise NoFrontError(
            "a front needs runs under several budgets: autoprune search -m budget=latency:0.8,latency:0.6,latency:0.4 "
            "device=this_cpu"
        )
    return several


def at_equal_latency(front: Front) -> list[AtEqualLatency]:
    """Every agent's runs under one kind of budget over those under another, latency over the others first."""
    pairs = [pair for pair in itertools.combinations(front.series.items(), 2) if pair[0][0][0] == pair[1][0][0]]
    return [_compared(front.task, regime, ours, others) for regime in front.regimes for (_, ours), (_, others) in pairs]


def _compared(task: str, regime: str, ours: Sequence[RunPoint], others: Sequence[RunPoint]) -> AtEqualLatency:
    accuracies: dict[float, list[float]] = {}
    for point in others:
        if regime in point.accuracy:
            accuracies.setdefault(point.share, []).append(point.accuracy[regime])
    shares = np.array(sorted(accuracies))
    means = np.array([np.mean(accuracies[share]) for share in shares])
    measured = [point for point in ours if regime in point.accuracy]
    inside = [point for point in measured if len(shares) and shares[0] <= point.share <= shares[-1]]
    differences = tuple(100 * (p.accuracy[regime] - float(np.interp(p.share, shares, means))) for p in inside)
    outside = len(measured) - len(inside)
    return AtEqualLatency(task, ours[0].agent, ours[0].guided, others[0].guided, regime, differences, outside)


def _dense_and_own(result: Mapping[str, Any]) -> tuple[NetworkReport, NetworkReport]:
    networks = {network.name: network for network in networks_of(result)}
    return networks["dense"], networks["searched"]


def _point(run: str, result: Mapping[str, Any], dense: NetworkReport, own: NetworkReport, runtime: str) -> RunPoint:
    bounds = result["budget"].get("bounds") or [result["budget"]]
    accuracy = {"post_training": own.post_training.get("accuracy"), "recovered": own.recovered.get("accuracy")}
    predicted = own.cost.get(LATENCY)
    return RunPoint(
        task=result["task"],
        agent=agent_name(result["agent"]),
        guided="+".join(bound["cost"] for bound in bounds),
        budget=result["budget"]["text"],
        seed=result["seed"],
        run=run,
        share=own.latency[runtime]["median"] / dense.latency[runtime]["median"],
        dense_ms=dense.latency[runtime]["median"],
        macs=own.cost["macs"] / dense.cost["macs"],
        predicted_ms=predicted,
        predicted_share=None if predicted is None else predicted / dense.cost[LATENCY],
        accuracy={name: value for name, value in accuracy.items() if value is not None},
    )
