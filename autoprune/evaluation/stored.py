"""One judged batch as a row of the evaluation store, and back."""

import math
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from autoprune.evaluation.outcome import Judged

PUT_CONTEXT = "INSERT INTO contexts (key, description) VALUES (?, ?) ON CONFLICT DO NOTHING"
PUT = "INSERT INTO judged VALUES ((SELECT id FROM contexts WHERE key = ?), ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
Row = tuple[str, bytes, int, bytes, bytes, float, int]  # context key, kept, batch, samples, numbers, seconds, checksum


class DamagedError(Exception):
    """What was read from the file cannot have been written by a store."""


def packed(kept: Sequence[int]) -> bytes:
    try:
        return struct.pack(f"<{len(kept)}I", *kept)
    except struct.error as error:
        raise ValueError(f"numbers of kept units must be in [0, 2³²), got {tuple(kept)}") from error


def as_row(key: str, plan: bytes, batch: int, judged: Judged) -> Row:
    values, samples, seconds = judged.values, judged.samples, float(judged.seconds) + 0.0  # −0 comes back as 0
    if (
        values.dtype != np.float32
        or samples.dtype != np.int32
        or values.shape != (4, samples.size)
        or samples.ndim != 1
    ):
        raise ValueError(
            f"a judged batch has float32 values [4, blocks] and int32 samples [blocks], got {values.dtype} "
            f"{list(values.shape)} and {samples.dtype} {list(samples.shape)}"
        )
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"the seconds of a judged batch must be finite and at least 0, got {seconds}")
    blobs = samples.astype("<i4", copy=False).tobytes(), values.astype("<f4", copy=False).tobytes()
    return key, plan, batch, *blobs, seconds, _checksum(key, plan, batch, *blobs, seconds)


def parsed(key: str, plan: bytes, batch: int, samples: bytes, numbers: bytes, seconds: float, checksum: int) -> Judged:
    """A row as it was put. Raises DamagedError where it is not."""
    try:
        right = _checksum(key, plan, batch, samples, numbers, seconds) == checksum and len(numbers) == 4 * len(samples)
    except (TypeError, struct.error):  # a column of another type
        right = False
    if not right:
        raise DamagedError(f"the checksum of batch {batch} of a plan is wrong")
    values = np.frombuffer(numbers, "<f4").reshape(4, -1).astype(np.float32)
    return Judged(values, np.frombuffer(samples, "<i4").astype(np.int32), seconds)


def _checksum(key: str, plan: bytes, batch: int, samples: bytes, numbers: bytes, seconds: float) -> int:
    sizes = struct.pack("<qqqd", len(plan), len(samples), batch, seconds)
    return zlib.crc32(b"".join((key.encode(), sizes, plan, samples, numbers)))
