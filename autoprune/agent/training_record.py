"""What a policy was trained on: how far it may be trusted."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

SINCE_02 = {"environment", "groups", "units"}  # entries that bundles of version 0.1 lack
OF_A_NETWORK = ("network", "family", "budget", "score", "sensitivity")  # what a row of `held_out` says


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """What a policy was trained on, and what its observations and actions mean.

    Raises:
        ValueError: An entry can't be what it says.

    >>> TrainingRecord(("budget",), "one_shot", "densities", ("digits",), "macs:0.5", seeds=(0,), evaluations=8).prior
    'none'
    """

    features: Sequence[str]
    """Names of what is observed, once for all groups."""
    mode: str
    """Layerwise, one_shot or edit."""
    actions: str
    """What −1 and 1 ask for."""
    tasks: Sequence[str]
    """Names of the networks."""
    budget: str
    """As it was written."""
    seeds: Sequence[int]
    """Of the runs."""
    evaluations: int
    """Plans that were judged."""
    score: str = "unknown"
    """What rewards were made of."""
    budgets: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Cost → lowest and highest fraction of dense that it was trained under."""
    max_log_correction: float | None = None
    """What an action of 1 adds to the prior's log-density."""
    prior: str = "none"
    """The plan that actions correct."""
    curves: bool = False
    """Whether observations need every group's loss when it is pruned alone."""
    normaliser: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Feature → (centre, spread)."""
    held_out: Sequence[Mapping[str, Any]] = ()
    """Networks that it never saw: OF_A_NETWORK each, where 0 is the uniform plan and 1 the best known."""
    environment: Mapping[str, Any] | None = None
    """The environment's EnvSpec, of a policy for one network."""
    groups: Sequence[str] = ()
    """Names of that network's groups."""
    units: Sequence[int] = ()
    """Of those groups in the dense network; empty in bundles that do not say."""

    def __post_init__(self) -> None:
        for name in ("mode", "actions", "budget", "score", "prior"):
            _rule(_is(getattr(self, name), str), name, getattr(self, name), "be text")
        for name in ("features", "tasks"):
            _rule(_all(getattr(self, name), str), name, getattr(self, name), "be a list of names")
        counted = _is(self.evaluations, int) and self.evaluations >= 0
        positive = self.max_log_correction is None or (_number(self.max_log_correction) and self.max_log_correction > 0)
        _rule(_all(self.seeds, int), "seeds", self.seeds, "be a list of whole numbers")
        _rule(counted, "evaluations", self.evaluations, "be a whole number of plans")
        _rule(positive, "max_log_correction", self.max_log_correction, "be above 0, or null")
        _rule(self.environment is None or _is(self.environment, Mapping), "environment", self.environment, "be a table")
        _rule(_all(self.groups, str), "groups", self.groups, "be a list of names")
        _rule(_all(self.units, int), "units", self.units, "be a list of whole numbers")
        _rule(_is(self.curves, bool), "curves", self.curves, "be true or false")
        _check_pairs("budgets", self.budgets, "be (lowest, highest) with 0 < lowest ≤ highest ≤ 1", _is_range)
        _check_pairs("normaliser", self.normaliser, "be (centre, spread) with spread > 0", _is_scale)
        unknown = sorted(self.normaliser.keys() - set(self.features))
        _rule(not unknown, "normaliser", unknown, f"be of features, which are {list(self.features)}")
        _rule(_all(self.held_out, Mapping), "held_out", self.held_out, f"be a list of tables of {OF_A_NETWORK}")
        for row in self.held_out:
            _check_network(row)
        for name in ("features", "tasks", "seeds", "held_out", "groups", "units"):  # JSON has lists; equal is equal
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("budgets", "normaliser"):
            object.__setattr__(self, name, {key: tuple(pair) for key, pair in getattr(self, name).items()})

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """From what was JSON. Raises ValueError where something is lacking, unknown or can't be."""
        names = {entry.name for entry in fields(cls)}
        lacking, unknown = sorted(names - values.keys() - SINCE_02), sorted(values.keys() - names)
        if lacking or unknown:
            raise ValueError(f"training must have the entries it is made of; lacking {lacking}, unknown {unknown}")
        return cls(**values)


def _check_network(row: Mapping[str, Any]) -> None:
    lacking = [name for name in OF_A_NETWORK if name not in row]
    _rule(not lacking, "held_out", row, f"be tables of {OF_A_NETWORK}")
    for name in ("network", "family", "budget"):
        _rule(isinstance(row[name], str), f"held_out's {name}", row[name], "be text")
    for name in ("score", "sensitivity"):
        _rule(_number(row[name]), f"held_out's {name}", row[name], "be a number")


def _check_pairs(name: str, pairs: Any, rule: str, holds: Callable[[float, float], bool]) -> None:
    _rule(isinstance(pairs, Mapping), name, pairs, "be a table")
    for key, pair in pairs.items():
        fits = isinstance(key, str) and isinstance(pair, Sequence) and len(pair) == 2 and all(map(_number, pair))
        _rule(fits and holds(*pair), f"{name} of {key!r}", pair, rule)


def _is_range(lowest: float, highest: float) -> bool:
    return 0 < lowest <= highest <= 1


def _is_scale(centre: float, spread: float) -> bool:
    return spread > 0


def _rule(holds: bool, name: str, value: Any, rule: str) -> None:
    if not holds:
        raise ValueError(f"training.{name} must {rule}, got {value!r}")


def _all(values: Any, kind: type) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str) and all(_is(value, kind) for value in values)


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _number(value: Any) -> bool:
    return _is(value, int) or (isinstance(value, float) and math.isfinite(value))
