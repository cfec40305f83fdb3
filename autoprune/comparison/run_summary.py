"""What one run of one agent says to a comparison: a `Trial`, as a value and as a line of JSON."""

import gzip
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from autoprune.plan import PruningPlan

UNIFORM, SENSITIVITY = "uniform", "sensitivity"  # the plans that every run is compared with
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pruned:
    """One plan, measured.

    score: on held-out search samples before any gradient step, higher is better; what the run's score= makes of the
    metrics. held_out, test: metrics there, before recovery. recovered: metrics on the test role after recovery, None
    where nothing was recovered. costs: cost name → value in its unit.
    """

    plan: PruningPlan
    score: float
    held_out: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    recovered: Mapping[str, float] | None = None
    costs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunIncumbent:
    """The best plan from one evaluation on.

    evaluation: from 1. score: on the samples that the search sees; held_out: on held-out ones; both higher is better.
    seconds: of judging plans up to there, as long as each takes when it is new; agent_seconds: of everything else.
    """

    evaluation: int
    score: float
    held_out: float
    seconds: float
    agent_seconds: float


@dataclass(frozen=True, slots=True)
class Anytime:
    """What a search would have handed out had it been stopped, by ascending evaluation.

    references: the uniform and the sensitivity-based plan's score, measured in the same way.
    """

    incumbents: tuple[RunIncumbent, ...]
    references: Mapping[str, float]

    def at(self, evaluation: float) -> RunIncumbent | None:
        """The incumbent after so many evaluations; None before the first."""
        known = [incumbent for incumbent in self.incumbents if incumbent.evaluation <= evaluation]
        return known[-1] if known else None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One search, by its own plan; what its run chose to hand out is no part of a comparison of searches.

    score_name: what the scores are (kl, accuracy, …). evaluations: how many it was given. spent: how many it used.
    dense: cost name → the dense network's, and its test accuracy. network: what must be equal for scores to be
    comparable (a hash). seconds, agent_seconds: of the whole search; None: unknown. optimum: the score of the best plan
    that there is inside the budget, where that is known. settings: the configuration by dotted name, to tell two of one
    agent apart.

    >>> plan = PruningPlan(groups=("conv1",), units=(16,), kept=(8,))
    >>> trial = Trial(task="digits", agent="ppo", seed=0, budget="macs:0.5", evaluations=100, own=Pruned(plan, -0.3))
    >>> Trial.from_json(trial.as_json()) == trial
    True
    """

    task: str
    agent: str
    seed: int
    budget: str
    evaluations: int
    own: Pruned
    baselines: Mapping[str, Pruned] = field(default_factory=dict)
    spent: int | None = None
    budget_cost: str = "macs"
    score_name: str = "kl"
    dense: Mapping[str, float] = field(default_factory=dict)
    network: str = ""
    anytime: Anytime | None = None
    seconds: float | None = None
    agent_seconds: float | None = None
    optimum: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

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
        record: dict[str, Any] = _json(asdict(self))
        for pruned, value in ((record["own"], self.own), *_paired(record["baselines"], self.baselines)):
            pruned["plan"] = value.plan.as_json()
        return record

    @classmethod
    def from_json(cls, record: Json) -> "RunSummary":
        """Raises ValueError where a field is missing, unknown or broken."""
        try:
            anytime = record.get("anytime")
            fields = dict(record) | {
                "own": _pruned(record["own"]),
                "baselines": {name: _pruned(value) for name, value in record.get("baselines", {}).items()},
                "anytime": None if anytime is None else _anytime(anytime),
            }
            return cls(**fields)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"this is no trial ({error}): {str(record)[:120]}") from error


def write_trials(path: Path, trials: Iterable[RunSummary]) -> None:
    """One line of JSON for each; compressed, always to the same bytes, where the name ends in .gz."""
    text = "".join(json.dumps(trial.as_json(), ensure_ascii=False, allow_nan=False) + "\n" for trial in trials)
    data = text.encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def read_trials(path: Path) -> list[RunSummary]:
    """The trials of a file that `write_trials` wrote. Raises ValueError that names the line which is damaged."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise ValueError(f"{path} is damaged: {error}") from error
    trials = []
    for number, line in enumerate(data.decode().splitlines(), start=1):
        try:
            trials.append(RunSummary.from_json(json.loads(line)))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return trials


def _pruned(record: Json) -> Pruned:
    return Pruned(**(dict(record) | {"plan": PruningPlan.from_json(record["plan"])}))


def _anytime(record: Json) -> Anytime:
    return Anytime(tuple(RunIncumbent(**value) for value in record["incumbents"]), dict(record["references"]))


def _paired(records: Mapping[str, Any], values: Mapping[str, Pruned]) -> list[tuple[Any, Pruned]]:
    return [(records[name], value) for name, value in values.items()]


def _json(value: Any) -> Any:
    """Tuples as lists. Raises ValueError where a number is not finite: nothing can be compared with it."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a trial holds finite numbers, got {value}")
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return value
