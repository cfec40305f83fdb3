"""What a policy was trained on: how far it may be trusted."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Self

from annotated_types import Gt, Lt

from autoprune.ranges import FinitePositive, Natural, Share, check_fields, check_value

SINCE_02 = {"environment", "groups", "units"}  # entries that bundles of version 0.1 lack
Finite = Annotated[float, Gt(float("-inf")), Lt(float("inf"))]
HELD_OUT_ROW: Mapping[str, Any] = {"network": str, "family": str, "budget": str, "score": Finite, "sensitivity": Finite}


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """What a policy was trained on, and what its observations and actions mean.

    Raises:
        ValueError: An entry can't be what it says.

    >>> TrainingRecord(("budget",), "one_shot", "densities", ("digits",), "macs:0.5", seeds=(0,), evaluations=8).prior
    'none'
    """

    features: tuple[str, ...]
    """Names of what is observed, once for all groups."""
    mode: str
    """Layerwise, one_shot or edit."""
    actions: str
    """What −1 and 1 ask for."""
    tasks: tuple[str, ...]
    """Names of the networks."""
    budget: str
    """As it was written."""
    seeds: tuple[int, ...]
    """Of the runs."""
    evaluations: Natural
    """Plans that were judged."""
    score: str = "unknown"
    """What rewards were made of."""
    budgets: Mapping[str, tuple[Share, Share]] = field(default_factory=dict)
    """Cost → lowest and highest fraction of dense that it was trained under."""
    max_log_correction: FinitePositive | None = None
    """What an action of 1 adds to the prior's log-density."""
    prior: str = "none"
    """The plan that actions correct."""
    curves: bool = False
    """Whether observations need every group's loss when it is pruned alone."""
    normaliser: Mapping[str, tuple[Finite, Finite]] = field(default_factory=dict)
    """Feature → (centre, spread)."""
    held_out: tuple[Mapping[str, Any], ...] = ()
    """Networks that it never saw: HELD_OUT_ROW each, where 0 is the uniform plan and 1 the best known."""
    environment: Mapping[str, Any] | None = None
    """The environment's EnvSpec, of a policy for one network."""
    groups: tuple[str, ...] = ()
    """Names of that network's groups."""
    units: tuple[int, ...] = ()
    """Of those groups in the dense network; empty in bundles that do not say."""

    def __post_init__(self) -> None:
        try:
            check_fields(self, "training")
            for row in self.held_out:
                for name, kind in HELD_OUT_ROW.items():
                    check_value(row.get(name), kind, f"training.held_out's {name}")
        except TypeError as error:
            raise ValueError(str(error)) from error
        for name, (low, high) in self.budgets.items():
            _rule(low <= high, f"budgets of {name!r}", self.budgets[name], "be (lowest, highest)")
        for name, (_, spread) in self.normaliser.items():
            _rule(spread > 0, f"normaliser of {name!r}", self.normaliser[name], "be (centre, spread) with spread > 0")
        unknown = sorted(self.normaliser.keys() - set(self.features))
        _rule(not unknown, "normaliser", unknown, f"be of features, which are {list(self.features)}")
        for name in ("budgets", "normaliser"):  # JSON has lists; equal is equal
            object.__setattr__(self, name, {key: tuple(pair) for key, pair in getattr(self, name).items()})

    @property
    def budget_texts(self) -> dict[str, str]:
        """Cost → the budgets of it that were trained under, as one is written: macs:0.5, or macs:0.2..0.8."""
        return {name: f"{name}:{low:g}" + f"..{high:g}" * (high > low) for name, (low, high) in self.budgets.items()}

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """From what was JSON. Raises ValueError where something is lacking, unknown or can't be."""
        names = {entry.name for entry in fields(cls)}
        lacking, unknown = sorted(names - values.keys() - SINCE_02), sorted(values.keys() - names)
        if lacking or unknown:
            raise ValueError(f"training must have the entries it is made of; lacking {lacking}, unknown {unknown}")
        return cls(**values)


def _rule(holds: bool, name: str, value: Any, rule: str) -> None:
    if not holds:
        raise ValueError(f"training.{name} must {rule}, got {value!r}")
