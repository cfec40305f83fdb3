"""One line of the benchmark's table: a number that was measured several times, and what it should be."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Met = Literal["aim", "reach", "no"]
Side = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Goal:
    """What the median should come to: `aim`, or at least `reach`. higher: more is better."""

    reach: float
    aim: float
    higher: bool = False

    def met(self, median: float) -> Met:
        sign = 1 if self.higher else -1
        if sign * median >= sign * self.aim:
            return "aim"
        return "reach" if sign * median >= sign * self.reach else "no"


@dataclass(frozen=True, slots=True)
class Row:
    """values: one for every repeat, in `unit` (× is a ratio). of_minima: the same of each side's fastest repeat.

    goal: None for what is told beside. holds: a condition that the goal needs as well; the note says which.
    detail: more numbers, for the JSON file only.
    """

    label: str
    unit: str
    values: tuple[float, ...]
    of_minima: float
    goal: Goal | None = None
    holds: bool = True
    note: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        low, median, high = (float(value) for value in np.quantile(self.values, [0.25, 0.5, 0.75]))
        record: dict[str, Any] = {"label": self.label, "unit": self.unit, "median": median, "of_minima": self.of_minima}
        record |= {"quartiles": [low, high], "repeats": len(self.values), "values": list(self.values)}
        if self.goal is not None:
            met = self.goal.met(median) if self.holds else "no"
            record |= {"reach": self.goal.reach, "aim": self.goal.aim, "higher": self.goal.higher, "met": met}
        return record | {"note": self.note, **({"detail": dict(self.detail)} if self.detail else {})}


def ratio(
    label: str,
    over: Sequence[float],
    under: Sequence[float],
    *,
    goal: Goal | None = None,
    note: str = "",
    detail: Mapping[str, Any] | None = None,
) -> Row:
    """over ÷ under, repeat by repeat: seconds of two sides that took turns."""
    values = tuple(a / b for a, b in zip(over, under, strict=True))
    seconds = {"over_seconds": spread(over), "under_seconds": spread(under)}
    detail = seconds | dict(detail or {})
    return Row(label, "×", values, min(over) / min(under), goal, note=note, detail=detail)


def amount(
    label: str, unit: str, values: Sequence[float], *, goal: Goal | None = None, note: str = "", holds: bool = True
) -> Row:
    """What was measured by itself."""
    return Row(label, unit, tuple(values), min(values), goal, holds, note)


def interleaved(sides: Sequence[Side], *, repeats: int) -> list[list[float]]:
    """Seconds of every side, [sides][repeats]. Sides take turns, and every other repeat goes through them backwards."""
    spent: list[list[float]] = [[] for _ in sides]
    for repeat in range(repeats):
        for side in sorted(range(len(sides)), reverse=repeat % 2 == 1):
            spent[side].append(seconds_of(sides[side]))
    return spent


def seconds_of(call: Side) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def spread(values: Sequence[float]) -> dict[str, float]:
    low, median, high = (float(value) for value in np.quantile(values, [0.25, 0.5, 0.75]))
    return {"minimum": float(min(values)), "lower_quartile": low, "median": median, "upper_quartile": high}
