"""Latency tables on the disk: JSON and npz in one folder for each device, so that a measurement is made once."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.device.fingerprint import differences, in_words
from autoprune.device.fused_layer import FusedLayer
from autoprune.device.timing import Timings
from autoprune.files import atomic_write
from autoprune.machine_cache import cache_dir

DEVICE_FILE, REFERENCE_FILE = "device.json", "reference.json"
FOLDER = "devices"  # in the cache folder
Point = tuple[int, int]  # inputs, outputs


class MissingTableError(ValueError):
    """Nothing was measured yet of what is asked, on this device."""


class LatencyTables:
    """What was measured on one device: points of layers, and whole networks.

    `pieces/KEY.json` says what a layer is, `pieces/KEY.npz` holds its points: inputs, outputs, and the fields of
    Timings, [points] each. `networks/KEY.json` holds plans of a network and what they took.
    """

    def __init__(self, folder: Path, device: Mapping[str, Any]) -> None:
        self.folder, self.device = folder, dict(device)

    @classmethod
    def of(cls, device: Mapping[str, Any], *, tables: Path | None = None) -> "LatencyTables":
        """The device's folder in the cache, or the folder `tables`, whose device must be this one.

        Raises ValueError for a folder that another device's tables are in, naming what differs.
        """
        if tables is None:
            return cls(cache_dir() / FOLDER / _digest(device), device)
        made = _read(tables / DEVICE_FILE)
        if made is None:
            raise MissingTableError(
                f"{tables} holds no latency tables: it has no {DEVICE_FILE}; set device.tables=null and make some with "
                "`autoprune profile`"
            )
        if differing := differences(made, device):
            raise ValueError(
                f"the latency tables in {tables} are another device's: {in_words(differing)}. A latency holds where "
                "it was measured only; make tables for this device with `autoprune profile`, with device.tables=null"
            )
        return cls(tables, device)

    def begin(self) -> None:
        """Makes the folder, and says in it which device it is of."""
        if not (self.folder / DEVICE_FILE).is_file():
            _write(self.folder / DEVICE_FILE, json.dumps(self.device, indent=1).encode())

    @property
    def best(self) -> float | None:
        """The least seconds that the reference took on this device, None before it was measured."""
        record = _read(self.folder / REFERENCE_FILE)
        return None if record is None else float(record["seconds"])

    def write_best(self, seconds: float) -> None:
        _write(self.folder / REFERENCE_FILE, json.dumps({"seconds": seconds}).encode())

    def points(self, layer: FusedLayer) -> tuple[list[Point], Timings]:
        """The (inputs, outputs) that were measured, and what they took."""
        path = self._path(layer)
        if not path.is_file():
            return [], Timings(np.empty(0), np.empty(0), np.empty(0))
        with np.load(path, allow_pickle=False) as data:
            places = zip(data["inputs"].tolist(), data["outputs"].tolist(), strict=True)
            return list(places), Timings(data["minimum"], data["median"], data["reference"])

    def add(self, layer: FusedLayer, points: Sequence[Point], timings: Timings) -> None:
        """The file with these points as well; they replace what was known of them. It appears whole or not at all."""
        known, before = self.points(layer)
        kept = [row for row, point in enumerate(known) if point not in set(points)]
        places = np.array([*(known[row] for row in kept), *points], np.int64)
        columns = {
            name: np.concatenate([getattr(before, name)[kept], getattr(timings, name)])
            for name in ("minimum", "median", "reference")
        }
        buffer = io.BytesIO()
        np.savez_compressed(buffer, inputs=places[:, 0], outputs=places[:, 1], **columns)  # type: ignore[arg-type]
        path = self._path(layer)
        _write(path.with_suffix(".json"), json.dumps(asdict(layer), indent=1, default=str).encode())
        _write(path, buffer.getvalue())

    def measured(self, layer: FusedLayer, inputs: Sequence[int], outputs: Sequence[int]) -> FloatArray:
        """The least seconds at knots, [inputs, outputs]; of a square layer [inputs, 1]. Raises MissingTableError."""
        points, timings = self.points(layer)
        known = dict(zip(points, timings.minimum.tolist(), strict=True))
        wanted = [(i, i) for i in inputs] if layer.square else [(i, o) for i in inputs for o in outputs]
        missing = [point for point in wanted if point not in known]
        if missing:
            raise MissingTableError(
                f"the latency of {layer} is not measured on this device, at {len(missing)} of {len(wanted)} widths"
                f"{self._others()}"
            )
        return np.array([known[point] for point in wanted]).reshape(len(inputs), -1)

    def network(self, key: str) -> dict[str, Any] | None:
        """What was written down of a network: JSON values."""
        return _read(self.folder / "networks" / f"{key}.json")

    def write_network(self, key: str, record: Mapping[str, Any]) -> None:
        _write(self.folder / "networks" / f"{key}.json", json.dumps(record).encode())

    def _path(self, layer: FusedLayer) -> Path:
        return self.folder / "pieces" / f"{_digest(asdict(layer))}.npz"

    def _others(self) -> str:
        """What differs from the most similar device of which there are tables."""
        found = [made for path in self.folder.parent.glob(f"*/{DEVICE_FILE}") if (made := _read(path)) != self.device]
        differing = [differences(made, self.device) for made in found if made is not None]
        if not differing:
            return ""
        return f"; the nearest tables are another device's ({in_words(min(differing, key=len))})"


def network_key(described: Mapping[str, Any]) -> str:
    """A name for a network, by all that its latency depends on: JSON values."""
    return _digest(described)


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}); remove it, and measure again with `autoprune profile`"
        ) from None
    return value if isinstance(value, dict) else None


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as partial:
        partial.write_bytes(content)
