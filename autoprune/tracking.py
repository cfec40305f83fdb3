"""Where a run's metrics go: the tracker protocol. Local files are always written; Weights & Biases is one tracker."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

Axis = str  # "evaluation", "agent/step" or "recover/step": what a metric is plotted against


class Tracker(Protocol):
    """Receives what a run measures. Keys are `room/name`; docs/metrics.md explains each."""

    def log(self, metrics: Mapping[str, float], *, axis: Axis, step: int) -> None: ...

    def summary(self, values: Mapping[str, Any]) -> None: ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...

    def bars(self, name: str, labels: Sequence[str], values: Sequence[float], *, title: str) -> None: ...

    def page(self, name: str, path: Path) -> None: ...

    def artifact(self, name: str, path: Path, *, kind: str) -> None: ...

    def close(self, *, failed: bool = False) -> None: ...
