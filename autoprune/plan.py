"""A pruning plan: how many units each group of a network keeps."""

from collections.abc import Mapping
from dataclasses import dataclass

from autoprune.ranges import check_value


@dataclass(frozen=True, slots=True)
class PruningPlan:
    """How many of its `units` each group keeps; groups are addressed by name, in the network's order.

    >>> PruningPlan(groups=("conv1", "fc1"), units=(16, 64), kept=(8, 64)).sparsity
    {'conv1': 0.5, 'fc1': 0.0}
    """

    groups: tuple[str, ...]
    """The groups' names."""
    units: tuple[int, ...]
    """How many units each group has, at least 1."""
    kept: tuple[int, ...]
    """How many of them it keeps, in [0, units]."""

    def __post_init__(self) -> None:
        for field in ("groups", "units", "kept"):
            if not isinstance(getattr(self, field), tuple):
                raise TypeError(f"{field} of a plan must be a tuple, got a {type(getattr(self, field)).__name__}")
        if not len(self.groups) == len(self.units) == len(self.kept):
            raise ValueError(
                f"{len(self.groups)} groups, {len(self.units)} units and {len(self.kept)} kept differ in length"
            )
        if len(set(self.groups)) < len(self.groups):
            twice = next(name for name in self.groups if self.groups.count(name) > 1)
            raise ValueError(f"the plan names group {twice!r} twice; every group is one decision")
        for name, units, kept in zip(self.groups, self.units, self.kept, strict=True):
            if type(kept) is not int or not 0 <= kept <= units:
                raise ValueError(f"group {name!r} must keep a whole number of 0 to {units} units, got {kept!r}")

    @property
    def sparsity(self) -> dict[str, float]:
        """Fraction of units removed from each group, in [0, 1]; 1 where a whole module is passed over."""
        return {g: 1 - k / n for g, n, k in zip(self.groups, self.units, self.kept, strict=True)}

    @classmethod
    def from_sparsity(cls, units: Mapping[str, int], sparsity: Mapping[str, float]) -> "PruningPlan":
        """Rounds each group's sparsity to whole units, at least one kept; a group that is not named stays whole.

        Args:
            units: Group → its units, in the network's order.
            sparsity: Group → the fraction that is removed, in [0, 1).

        Raises:
            TypeError: It is no mapping of groups to numbers.
            ValueError: A group is unknown, or a sparsity outside of its range.
        """
        check_value(sparsity, Mapping[str, float], "the sparsity")
        unknown = sorted(set(sparsity) - set(units))
        if unknown:
            raise ValueError(f"the plan names unknown groups {unknown}; the network's groups are {list(units)}")
        for name, value in sparsity.items():
            if not 0 <= value < 1:
                raise ValueError(f"sparsity of {name!r} must be in [0, 1), got {value}")
        kept = (max(1, round(n * (1 - sparsity.get(name, 0.0)))) for name, n in units.items())
        return cls(tuple(units), tuple(units.values()), tuple(kept))

    def as_json(self) -> dict[str, dict[str, int]]:
        return {g: {"units": n, "kept": k} for g, n, k in zip(self.groups, self.units, self.kept, strict=True)}

    @classmethod
    def from_json(cls, record: Mapping[str, Mapping[str, int]]) -> "PruningPlan":
        check_value(record, Mapping[str, Mapping[str, int]], "a plan's record")
        if wrong := [name for name, value in record.items() if not {"units", "kept"} <= value.keys()]:
            raise ValueError(f"a plan's record says units and kept of every group; of {wrong[0]!r} it lacks one")
        values = list(record.values())
        return cls(tuple(record), tuple(v["units"] for v in values), tuple(v["kept"] for v in values))
