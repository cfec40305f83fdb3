"""What one run of one agent says to a comparison: a `RunSummary`, as a value and as a line of JSON."""

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from autoprune.plan import PruningPlan

UNIFORM, SENSITIVITY = "uniform", "sensitivity"  # the plans that every run is compared with
# Searches whose plan no seed changes: one run says as much as ten.
DETERMINISTIC = frozenset({UNIFORM, SENSITIVITY, "block_influence", "closed_form", "erk", "global", "lamp", "owl"})
RENAMED = {"advised": "critic_guided", "carried": "transferable"}  # agents, since 0.2
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MeasuredPlan:
    """One plan, and what was measured of its network."""

    plan: PruningPlan
    """Units kept of every group."""
    score: float
    """What the run's `score=` makes of the held-out metrics, before any gradient step; higher is better."""
    held_out: Mapping[str, float] = field(default_factory=dict)
    """Metrics on held-out search samples, before recovery."""
    test: Mapping[str, float] = field(default_factory=dict)
    """Metrics on the test role, before recovery."""
    recovered: Mapping[str, float] | None = None
    """Metrics on the test role after recovery; None where nothing was recovered."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """Cost name → value in its unit."""


@dataclass(frozen=True, slots=True)
class PolicyPlan:
    """What a learned policy proposes by itself, judged on the samples that its search saw; higher is better."""

    plan: PruningPlan
    """Of the best of its evaluated weights."""
    score: float
    """Of that plan."""
    uniform: float
    """The uniform plan's score."""
    best: float | None = None
    """The score of the best plan that the search met; None where none was inside the budget."""


@dataclass(frozen=True, slots=True)
class RunIncumbent:
    """The best plan from one evaluation on."""

    evaluation: int
    """Counted from 1."""
    score: float
    """On the samples that the search sees, higher is better."""
    held_out: float
    """On held-out samples, higher is better."""
    seconds: float
    """Of judging plans up to there, as long as each takes when it is new."""
    agent_seconds: float
    """Of everything else up to there."""


@dataclass(frozen=True, slots=True)
class AnytimeCurve:
    """What a search would have handed out had it been stopped."""

    incumbents: tuple[RunIncumbent, ...]
    """By ascending evaluation."""
    references: Mapping[str, float]
    """Baseline → its plan's score, measured as the incumbents' `held_out`."""

    def at(self, evaluation: float) -> RunIncumbent | None:
        """The incumbent after so many evaluations; None before the first."""
        earlier = [incumbent for incumbent in self.incumbents if incumbent.evaluation <= evaluation]
        return earlier[-1] if earlier else None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One search by its own plan; what its run chose to hand out is no part of a comparison of searches.

    >>> plan = PruningPlan(groups=("conv1",), units=(16,), kept=(8,))
    >>> own = MeasuredPlan(plan, score=-0.3)
    >>> run = RunSummary(task="digits", agent="ppo", seed=0, budget="macs:0.5", evaluations=100, own=own)
    >>> RunSummary.from_json(run.as_json()) == run
    True
    """

    task: str
    """The task's name."""
    agent: str
    """Its name in conf/agent, or that of its function."""
    seed: int
    """Of the run."""
    budget: str
    """As it was written, such as macs:0.5."""
    evaluations: int
    """How many the search was given."""
    own: MeasuredPlan
    """The best plan that the search itself found."""
    baselines: Mapping[str, MeasuredPlan] = field(default_factory=dict)
    """uniform and sensitivity → their plans, measured as the own one."""
    spent: int | None = None
    """How many evaluations it used; None: unknown."""
    budget_cost: str = "macs"
    """The cost that the budget bounds."""
    score_name: str = "kl"
    """What the scores are made of: kl, accuracy, …"""
    dense: Mapping[str, float] = field(default_factory=dict)
    """Cost name → the dense network's, and its test accuracy."""
    network: str = ""
    """A hash of what must be equal for scores to be comparable."""
    anytime: AnytimeCurve | None = None
    """The best plans from each evaluation on; None where they were not judged."""
    seconds: float | None = None
    """Of judging plans in the whole search; None: unknown."""
    agent_seconds: float | None = None
    """Of everything else in the whole search; None: unknown."""
    optimum: float | None = None
    """The score of the best plan that there is inside the budget, where that is known."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The configuration by dotted name, to tell two of one agent apart."""
    policy: PolicyPlan | None = None
    """The plan of what was learned; None where nothing was, or nobody evaluated it."""
    version: str = ""
    """Of autoprune; empty: unknown."""

    def __post_init__(self) -> None:
        if self.policy is not None and UNIFORM not in self.baselines:
            raise ValueError("a run with a policy's own plan needs the uniform plan among its baselines")

    @property
    def cell(self) -> tuple[str, str]:
        """What only like is compared in: the task and the budget."""
        return self.task, self.budget

    @property
    def cost_left(self) -> float | None:
        """The own plan's share of the dense network's cost, of the one that the budget bounds."""
        cost, dense = self.own.costs.get(self.budget_cost), self.dense.get(self.budget_cost)
        return None if cost is None or not dense else cost / dense

    def as_json(self) -> dict[str, Any]:
        """Raises ValueError where a number is not finite: nothing can be compared with it."""
        record: dict[str, Any] = _plain(self)
        return record

    @classmethod
    def from_json(cls, record: Json) -> "RunSummary":
        """The summary; an agent's name of version 0.1 becomes today's.

        Raises:
            ValueError: a field is missing, unknown or broken.
        """
        try:
            anytime, policy = record.get("anytime"), record.get("policy")
            values = dict(record) | {
                "agent": agent_name(record["agent"]),
                "own": _measured(record["own"]),
                "baselines": {name: _measured(value) for name, value in record.get("baselines", {}).items()},
                "anytime": None if anytime is None else _curve(anytime),
                "policy": policy and PolicyPlan(**(dict(policy) | {"plan": PruningPlan.from_json(policy["plan"])})),
            }
            return cls(**values)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"this is no summary of a run ({error}): {str(record)[:120]}") from error


def agent_name(recorded: str) -> str:
    """Today's name of an agent; runs of version 0.1 recorded others."""
    return RENAMED.get(recorded, recorded)


def write_summaries(path: Path, runs: Iterable[RunSummary]) -> None:
    """One line of JSON for each; compressed, always to the same bytes, where the name ends in .gz.

    Args:
        path: The file, ending in .jsonl or .jsonl.gz.
        runs: In the order of their lines.
    """
    text = "".join(json.dumps(run.as_json(), ensure_ascii=False, allow_nan=False) + "\n" for run in runs)
    data = text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def read_summaries(path: Path) -> list[RunSummary]:
    """What `write_summaries` wrote. Raises ValueError that names the line which is damaged."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = data.decode().splitlines()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}; `autoprune compare` writes run_summaries.jsonl") from error
    except PermissionError:
        raise
    except (EOFError, OSError, UnicodeDecodeError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    runs = []
    for number, line in enumerate(lines, start=1):
        try:
            runs.append(RunSummary.from_json(json.loads(line)))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: this is no summary of a run, because it is not JSON: {line[:60]!r}"
            ) from error
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return runs


def _measured(record: Json) -> MeasuredPlan:
    return MeasuredPlan(**(dict(record) | {"plan": PruningPlan.from_json(record["plan"])}))


def _curve(record: Json) -> AnytimeCurve:
    return AnytimeCurve(tuple(RunIncumbent(**value) for value in record["incumbents"]), dict(record["references"]))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a run's summary holds finite numbers, got {value}")
    if isinstance(value, PruningPlan):
        return value.as_json()
    if is_dataclass(value):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
