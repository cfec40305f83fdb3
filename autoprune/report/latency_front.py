"""Accuracy against measured latency over the runs of several budgets: what a front is made of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.comparison.reading import job_folders
from autoprune.report.contents import NetworkReport, networks_of
from autoprune.runs import RunFolder

REGIMES = {"post_training": "Post-training", "recovered": "Recovered"}
RUNTIMES = ("onnxruntime", "torch")  # the first that every run has measured is the page's
LATENCY = "latency"
FAR = 0.15  # from what latency tables predict, which are off by a few percent


class NoFrontError(ValueError):
    """The runs are sound, but no front can be made of them."""


@dataclass(frozen=True, slots=True)
class Point:
    """One run's own network. guided: what its budget bounds; share: its median latency over that of the dense network.

    Both were measured in the same run, so that a machine's mood is in both; dense_ms is that run's own. macs: over
    dense. predicted_ms, predicted_share: what the run's device said of the network, and over the dense one; None
    without a device. accuracy: regime → on test data; a regime that the run has not is not there.
    """

    task: str
    agent: str
    guided: str
    budget: str
    seed: int
    run: str
    share: float
    dense_ms: float
    macs: float
    predicted_ms: float | None
    predicted_share: float | None
    accuracy: Mapping[str, float]

    @property
    def ms(self) -> float:
        return self.share * self.dense_ms

    @property
    def series(self) -> tuple[str, str]:
        return self.agent, self.guided

    @property
    def surprising(self) -> bool:
        """What was measured is far from what was predicted: the machine may have been busy."""
        return self.predicted_share is not None and abs(self.share / self.predicted_share - 1) > FAR


@dataclass(frozen=True, slots=True)
class Front:
    """The points of one task, on one runtime."""

    task: str
    runtime: str
    points: tuple[Point, ...]

    @property
    def dense_ms(self) -> float:
        """The median over runs."""
        return float(np.median([point.dense_ms for point in self.points]))

    @property
    def series(self) -> dict[tuple[str, str], list[Point]]:
        """(agent, what guides it) → points, fastest first; latency-guided ones first."""
        names = sorted({point.series for point in self.points}, key=lambda name: (name[1] != LATENCY, name))
        by_share = sorted(self.points, key=lambda point: point.share)
        return {name: [point for point in by_share if point.series == name] for name in names}

    @property
    def regimes(self) -> list[str]:
        return [regime for regime in REGIMES if any(regime in point.accuracy for point in self.points)]


@dataclass(frozen=True, slots=True)
class AtEqualLatency:
    """What guiding by one cost brings over another at the same measured latency: points of test accuracy.

    differences: one for each run of `guided` whose latency is within the range of the `other` ones', whose accuracy in
    between is interpolated. outside: runs that are faster, or slower, than all of those.
    """

    task: str
    agent: str
    guided: str
    other: str
    regime: str
    differences: tuple[float, ...]
    outside: int


def fronts(folders: Sequence[Path]) -> list[Front]:
    """One for each task, of all complete runs in the folders.

    Raises NoFrontError where there are no two budgets of one task, or no runtime that all runs have measured.
    """
    results = [(run.path, run.read_json("result.json")) for run in _complete(folders)]
    if not results:
        raise NoFrontError(f"there is no complete run in {', '.join(map(str, folders))}")
    runtime = next((name for name in RUNTIMES if all(name in _latencies(result) for _, result in results)), None)
    if runtime is None:
        raise NoFrontError("there is no runtime on which all of these runs were measured")
    points = [_point(path, result, runtime) for path, result in results]
    found = []
    for task in dict.fromkeys(point.task for point in points):
        of = tuple(point for point in points if point.task == task)
        if len({point.budget for point in of}) > 1:
            found.append(Front(task, runtime, of))
    if not found:
        raise NoFrontError(
            "a front needs runs under several budgets: autoprune search -m budget=latency:0.8,latency:0.6,latency:0.4 "
            "device=this_cpu"
        )
    return found


def at_equal_latency(front: Front) -> list[AtEqualLatency]:
    """Every agent's runs under one kind of budget over those under another, latency over the others first."""
    found = []
    series = front.series
    for regime in front.regimes:
        for agent, guided in series:
            for other_agent, other in series:
                if other_agent == agent and (guided, other) in _pairs(series, agent):
                    found.append(_compared(front.task, regime, series[agent, guided], series[agent, other]))
    return found


def _pairs(series: Mapping[tuple[str, str], Any], agent: str) -> list[tuple[str, str]]:
    """Which costs are compared: each pair once, in the order of the series."""
    costs = [guided for name, guided in series if name == agent]
    return [(one, other) for place, one in enumerate(costs) for other in costs[place + 1 :]]


def _compared(task: str, regime: str, ours: Sequence[Point], others: Sequence[Point]) -> AtEqualLatency:
    known = [(point.share, point.accuracy[regime]) for point in others if regime in point.accuracy]
    shares = np.array(sorted({share for share, _ in known}))
    means = np.array([np.mean([accuracy for share, accuracy in known if share == s]) for s in shares])
    of = [point for point in ours if regime in point.accuracy]
    inside = [point for point in of if len(shares) and shares[0] <= point.share <= shares[-1]]
    differences = [100 * (p.accuracy[regime] - float(np.interp(p.share, shares, means))) for p in inside]
    first = ours[0]
    return AtEqualLatency(
        task, first.agent, first.guided, others[0].guided, regime, tuple(differences), len(of) - len(inside)
    )


def _complete(folders: Sequence[Path]) -> Iterator[RunFolder]:
    """Raises FileNotFoundError for a folder that is not there."""
    for folder in folders:
        for job in job_folders(folder):
            if (job / "result.json").is_file():
                yield RunFolder.open(job)


def _latencies(result: Mapping[str, Any]) -> set[str]:
    """The runtimes on which the dense and the search's own network were measured."""
    dense, own = _pair(result)
    return {*dense.latency} & {*own.latency}


def _pair(result: Mapping[str, Any]) -> tuple[NetworkReport, NetworkReport]:
    known = {network.name: network for network in networks_of(result)}
    return known["dense"], known["searched"]


def _point(path: Path, result: Mapping[str, Any], runtime: str) -> Point:
    dense, own = _pair(result)
    bounds = result["budget"].get("bounds") or [result["budget"]]
    accuracy = {"post_training": own.post_training.get("accuracy"), "recovered": own.recovered.get("accuracy")}
    predicted = own.cost.get(LATENCY)
    return Point(
        task=result["task"],
        agent=result["agent"],
        guided="+".join(bound["cost"] for bound in bounds),
        budget=result["budget"]["text"],
        seed=result["seed"],
        run=path.name,
        share=own.latency[runtime]["median"] / dense.latency[runtime]["median"],
        dense_ms=dense.latency[runtime]["median"],
        macs=own.cost["macs"] / dense.cost["macs"],
        predicted_ms=predicted,
        predicted_share=None if predicted is None else predicted / dense.cost[LATENCY],
        accuracy={name: value for name, value in accuracy.items() if value is not None},
    )
