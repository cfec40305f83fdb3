"""Latency tables on the disk: JSON and npz in one folder for each device, so that nothing is measured twice."""

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
from autoprune.device.widths import Widths
from autoprune.files import atomic_write
from autoprune.machine_cache import cache_dir

DEVICE_FILE, REFERENCE_FILE = "device.json", "reference.json"
FOLDER = "devices"  # in the cache folder
TIMED = ("minimum", "median", "reference")
Point = tuple[int, ...]  # a layer's inputs and outputs, or what a plan keeps of each group
Entry = tuple[str, Mapping[str, Any]]  # a folder, and what its points are of, as JSON values


class MissingTableError(ValueError):
    """Nothing was measured yet of what is asked, on this device."""


class LatencyTables:
    """What was measured on one device: points of layers, and of whole networks.

    `layers/KEY.json` says what a layer is, and `layers/KEY.npz` holds its points [points, 2] and the fields of Timings,
    [points] each. `networks/KEY.npz` holds the same of plans [plans, groups].

    Args:
        folder: Where the tables lie.
        device: The device's fingerprint.
    """

    def __init__(self, folder: Path, device: Mapping[str, Any]) -> None:
        self.folder, self.device = folder, dict(device)

    @classmethod
    def of(cls, device: Mapping[str, Any], *, tables: Path | None = None) -> "LatencyTables":
        """The device's folder in the cache, or the folder `tables`, whose device must be this one.

        Raises:
            ValueError: The folder holds another device's tables, or none; it says what differs.

        Args:
            device: The device.
            tables: The folder of latency tables; None: the device's own.
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

    def points(self, entry: Entry) -> tuple[list[Point], Timings]:
        """The points that were measured, and what they took."""
        path = self._path(entry)
        if not path.is_file():
            return [], Timings(np.empty(0), np.empty(0), np.empty(0))
        with np.load(path, allow_pickle=False) as data:
            return list(map(tuple, data["points"].tolist())), Timings(*(data[name] for name in TIMED))

    def add(self, entry: Entry, points: Sequence[Point], timings: Timings) -> None:
        """Writes these points too; they replace what was measured of them before.

        Args:
            entry: The layer, its widths and settings.
            points: Widths that were measured.
            timings: What they took.
        """
        earlier, before = self.points(entry)
        kept = [row for row, point in enumerate(earlier) if point not in set(points)]
        columns = {name: np.concatenate([getattr(before, name)[kept], getattr(timings, name)]) for name in TIMED}
        buffer, path = io.BytesIO(), self._path(entry)
        points = np.array([*(earlier[row] for row in kept), *points], np.int64)  # type: ignore[assignment]
        np.savez_compressed(buffer, points=points, **columns)  # type: ignore[arg-type]
        _write(path.with_suffix(".json"), json.dumps(entry[1], indent=1, default=str).encode())
        _write(path, buffer.getvalue())

    def seconds(self, layer: FusedLayer, inputs: Sequence[int], outputs: Sequence[int]) -> FloatArray:
        """The least seconds at knots, [inputs, outputs]; of a square layer [inputs, 1].

        Args:
            layer: The layer, with what runs in one call with it.
            inputs: Widths that are read [inputs].
            outputs: Widths that are written [outputs].

        Raises:
            MissingTableError: It was not measured.
        """
        points, timings = self.points(layer_entry(layer))
        measured = dict(zip(points, timings.minimum.tolist(), strict=True))
        wanted = points_of(layer, inputs, outputs)
        missing = [point for point in wanted if point not in measured]
        if missing:
            raise MissingTableError(
                f"the latency of {layer} is not measured on this device, at {len(missing)} of {len(wanted)} widths"
                f"{self._others()}"
            )
        return np.array([measured[point] for point in wanted]).reshape(len(inputs), -1)

    def _path(self, entry: Entry) -> Path:
        return self.folder / entry[0] / f"{_digest(entry[1])}.npz"

    def _others(self) -> str:
        """What differs from the most similar device of which there are tables."""
        devices = [_read(path) for path in self.folder.parent.glob(f"*/{DEVICE_FILE}")]
        differing = [differences(made, self.device) for made in devices if made not in (None, self.device)]
        if not differing:
            return ""
        return f"; the nearest tables are another device's ({in_words(min(differing, key=len))})"


def layer_entry(layer: FusedLayer) -> Entry:
    """Where a layer's points lie: (inputs, outputs)."""
    return "layers", asdict(layer)


def network_entry(widths: Widths) -> Entry:
    """Where a network's points lie: what plans keep. It is named by all that the network's latency depends on."""
    tables = {name: getattr(widths, name).tolist() for name in ("index", "inputs", "outputs", "counts")}
    return "networks", {"layers": [asdict(layer) for layer in widths.layers], **tables}


def points_of(layer: FusedLayer, inputs: Sequence[int], outputs: Sequence[int]) -> list[Point]:
    """The points of a layer at these widths; a square layer has one width.

    Args:
        layer: The layer, with what runs in one call with it.
        inputs: Widths that are read [inputs].
        outputs: Widths that are written [outputs].
    """
    return [(i, i) for i in inputs] if layer.square else [(i, o) for i in inputs for o in outputs]


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
