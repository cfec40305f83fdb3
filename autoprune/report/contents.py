"""What stands in a run folder, finished or not, as the report reads it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoprune.comparison.run_summary import agent_name
from autoprune.runs import RunFolder
from autoprune.statistics import Floats

ORDER = ("dense", "uniform", "sensitivity", "searched")  # how networks are listed everywhere
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NetworkReport:
    """What was measured of one network; a mapping is empty where nothing was measured, or nothing was trained."""

    name: str
    """dense, uniform, sensitivity or searched."""
    title: str
    """The name as tables have it, with the agent behind the searched one."""
    chosen: bool
    """It is the one that is handed out."""
    same_as: str | None
    """The network listed before it whose plan is the same, so that all numbers are."""
    plan: Json
    """Group → units, kept."""
    cost: Json
    """Cost name → the plan's, in that cost's unit."""
    proxy: Json
    """Metrics on the search data."""
    held_out: Json
    """Metrics on the part of the search data that no reward saw."""
    post_training: Json
    """Metrics on the test role before any gradient step."""
    recovered: Json
    """Metrics on the test role after recovery."""
    latency: Json
    """Runtime → median, low and high in ms."""
    files: Json
    """Format → bytes."""
    measures: Json
    """What else the task had measured."""
    harmed: Json | None = None
    """Where recovery made it worse, so that it was left out: metrics of the recovered network on held-out samples."""
    file_limit: Json | None = None
    """Under a budget of encoded bytes: its file's bytes, the limit, and weights that went to meet it."""

    @property
    def density(self) -> dict[str, float]:
        """Fraction of each group's units that is kept."""
        return {group: entry["kept"] / entry["units"] for group, entry in self.plan.items()}


@dataclass(frozen=True, slots=True)
class Contents:
    """A run folder's files; an interrupted run has no result, and networks only once it has one."""

    run: Json
    """What run.json holds."""
    structure: Json
    """What structure.json holds; empty where it is not there."""
    curves: Json
    """What curves.json holds; empty where it is not there."""
    history: Sequence[Json]
    """The lines of history.jsonl."""
    recover: Sequence[Json]
    """The lines of recover.jsonl."""
    result: Json | None
    """What result.json holds; None of an unfinished run."""
    config: str
    """The text of config.yaml."""
    networks: tuple[NetworkReport, ...]
    """In ORDER; empty of an unfinished run."""

    def network(self, name: str) -> NetworkReport | None:
        """The network of this name; None where there is none."""
        return next((network for network in self.networks if network.name == name), None)

    @property
    def chosen(self) -> NetworkReport | None:
        """The network that is handed out."""
        return next((network for network in self.networks if network.chosen), None)

    @property
    def budget(self) -> Json:
        """The tightest budget, and all of several beside it."""
        budget: Json = (self.result or self.run).get("budget") or {}
        return budget

    @property
    def bounds(self) -> list[Json]:
        """Every single budget that the plans meet."""
        bounds: list[Json] = self.budget.get("bounds") or ([self.budget] if self.budget else [])
        return bounds

    @property
    def units(self) -> dict[str, int]:
        """Group → how many units it has."""
        return {group["name"]: int(group["units"]) for group in self.structure.get("groups") or []}

    @property
    def uncounted(self) -> list[str]:
        """What of the costs could not be counted, a sentence each."""
        return list(self.structure.get("uncounted") or ())

    @property
    def densities(self) -> dict[str, dict[str, float]]:
        """Plan that the run compares, the dense one left out → group → fraction of its units kept."""
        return {network.name: network.density for network in self.networks if network.name != "dense"}

    @property
    def whole(self) -> list[Json]:
        """The evaluations on all samples: whoever left a race before has seen too few to be compared with others."""
        most = max((r["samples"] for r in self.history if r.get("samples") is not None), default=0)
        return [record for record in self.history if record.get("samples") == most]

    @property
    def best(self) -> Json | None:
        """The record of the best plan inside the budget that the search has evaluated."""
        scored = [r for r in self.whole if r.get("feasible") and r.get("score") is not None and r["phase"] == "search"]
        return max(scored, key=lambda record: float(record["score"]), default=None)

    @property
    def baseline_scores(self) -> dict[str, float]:
        """The scores on which the baselines' plans were judged as every plan of the search was."""
        kept = {
            name: [entry["kept"] for entry in network.plan.values()]
            for name in ("uniform", "sensitivity")
            if (network := self.network(name)) is not None
        }
        scored = [record for record in self.whole if record.get("score") is not None]
        return {name: float(r["score"]) for name, plan in kept.items() for r in scored if r["kept"] == plan}


def read_contents(folder: RunFolder) -> Contents:
    """Whatever is there; what a run has not written yet is empty. Damaged files are errors that name the file."""
    result = _read(folder, "result.json")
    return Contents(
        run=folder.read_json("run.json"),
        structure=_read(folder, "structure.json"),
        curves=_read(folder, "curves.json"),
        history=folder.read_lines("history.jsonl"),
        recover=folder.read_lines("recover.jsonl"),
        result=result or None,
        config=(folder.path / "config.yaml").read_text(encoding="utf-8") if folder.has("config.yaml") else "",
        networks=networks_of(result) if result else (),
    )


def networks_of(result: Json) -> tuple[NetworkReport, ...]:
    """The networks of a result.json, in ORDER. Where the run's recovery changed nothing, none of them was recovered."""
    records = {name: result["networks"][name] for name in ORDER if name in result["networks"]}
    trained = any(record.get("after") != record.get("before") for name, record in records.items() if name != "dense")
    networks: list[NetworkReport] = []
    for name, record in records.items():
        networks.append(
            NetworkReport(
                name=name,
                title=f"searched ({agent_name(result['agent'])})" if name == "searched" else name,
                chosen=name == result["chosen"],
                same_as=next((n.name for n in networks if n.name != "dense" and n.plan == record["plan"]), None),
                plan=record["plan"],
                cost=record.get("cost") or {},
                proxy=record.get("proxy") or {},
                held_out=record.get("held_out") or {},
                post_training=record.get("before") or {},
                recovered=(record.get("after") or {}) if trained else {},
                latency=record.get("latency_ms") or {},
                files=record.get("file_bytes") or {},
                measures=record.get("measures") or {},
                harmed=record.get("harmed"),
                file_limit=record.get("file_limit"),
            )
        )
    return tuple(networks)


def column(records: Sequence[Json], name: str) -> Floats:
    """The records' values [records], NaN where there is none.

    Args:
        records: Rows, in JSON's values.
        name: The name.
    """
    return np.array([math.nan if record.get(name) is None else record[name] for record in records], np.float64)


def _read(folder: RunFolder, name: str) -> Json:
    value: Json = folder.read_json(name) if folder.has(name) else {}
    return value
