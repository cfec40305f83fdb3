"""What is measured once on this machine and remembered: which settings make it fast."""

import contextlib
import ctypes
import json
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from autoprune.files import atomic_write

FILE = "measured.json"
GAIN = 1.03  # what has to be gained for a setting to be changed
FREED_BYTES = 2**28  # by which a process may grow before it gives back what is free in it
BIG, WIDE = (256, 16, 56, 56), (16, 16, 3, 3)  # a convolution with 51 MB of activations, which glibc maps and unmaps

log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Returns where autoprune keeps what can be made again: $AUTOPRUNE_CACHE, else its folder in the user's cache.

    Where nobody can write there, a warning says so, once, and it is a folder that ends with this process.
    """
    named = os.environ.get("AUTOPRUNE_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(named or f"{home}/autoprune")
    with contextlib.suppress(OSError, RuntimeError):  # a home that is not known
        folder = folder.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    return Path(_passing_folder(folder).name)


@cache
def _passing_folder(instead_of: Path) -> tempfile.TemporaryDirectory[str]:
    log.warning(
        "nothing can be written to the cache %s: what is measured, trained and judged is kept for this process alone; "
        "set AUTOPRUNE_CACHE to a folder that can be written",
        instead_of,
    )
    return tempfile.TemporaryDirectory(prefix="autoprune-")


@dataclass(frozen=True, slots=True)
class MeasurementCache:
    """Remembers what was measured on this machine, by what it depends on.

    >>> MeasurementCache(None).get_or_measure({"question": "how many"}, lambda: 3)
    3
    """

    folder: Path | None
    """Where its JSON file lies; None remembers nothing."""

    def get_or_measure(self, question: Mapping[str, Any], measure: Callable[[], Any]) -> Any:
        """Returns the answer that was measured on this machine before, else what `measure` returns now.

        Args:
            question: What the answer depends on beside the machine, in JSON values.
            measure: Returns the answer as a JSON value.
        """
        key = json.dumps({**question, "machine": _fingerprint()}, sort_keys=True)
        answers = self._read()
        if key in answers:
            return answers[key]
        answer = measure()
        if self.folder is not None:  # of two processes that write at once one answer is lost, and measured again
            with atomic_write(self.folder / FILE) as partial:
                partial.write_text(json.dumps({**self._read(), key: answer}, indent=1) + "\n", encoding="utf-8")
        return answer

    def _read(self) -> dict[str, Any]:
        if self.folder is None or not (self.folder / FILE).is_file():
            return {}
        try:
            answers = json.loads((self.folder / FILE).read_text(encoding="utf-8"))
        except ValueError:
            return {}  # damaged: everything in it can be measured again
        return answers if isinstance(answers, dict) else {}


def choose_allocator(cache: MeasurementCache) -> bool:
    """Returns whether `keep_freed_memory` makes this machine faster, and has set it so."""
    if _glibc() is None:
        return False

    def measure() -> bool:
        before = _seconds()
        keep_freed_memory(True)
        return _seconds() * GAIN < before

    chosen = bool(cache.get_or_measure({"question": "keep freed memory", "of": BIG}, measure))
    keep_freed_memory(chosen)
    return chosen


def keep_freed_memory(keep: bool) -> None:
    """Sets whether this process keeps freed memory for the next activation; does nothing with another C library.

    glibc returns big blocks to the system when they are freed, and every layer of a forward pass has to fault its pages
    in again. Keeping them is worth 22 to 39 % more images a second in fp32 at batches of 50 and 256 (ResNet-20, one
    thread), 70 % at 1024, and 50 % in bf16 at 256.

    Args:
        keep: False sets the thresholds that glibc would get to by itself. Whoever sets one ends glibc's own adjusting
            of it, and its initial 128 KiB, fixed, would have every activation mapped anew.
    """
    libc = _glibc()
    if libc is None:
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
    values = (2**30, 2**31 - 1, 2**28) if keep else (2**25, 2**26, 2**17)
    for option, value in zip((mmap_threshold, trim_threshold, top_pad), values, strict=True):
        libc.mallopt(option, value)


class _Releasing:
    """Gives back what is free, where this process has grown since it last did."""

    resident = 0  # bytes after the last time

    def __call__(self) -> None:
        """Where the process holds FREED_BYTES more than after the last time, what is free goes back to the system.

        Kept memory falls to pieces: activations of large images, of which no two layers' are of one size, leave twice
        as much of it free as they use. glibc counts as free what it has given back, too, so that it is not asked.
        """
        libc = _glibc()
        if libc is not None and _resident_bytes() > self.resident + FREED_BYTES:
            libc.malloc_trim(0)
            self.resident = _resident_bytes()


release_freed_memory = _Releasing()


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _seconds() -> float:
    inputs, weights = torch.zeros(BIG), torch.zeros(WIDE)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(5):
            start = time.perf_counter()
            F.relu(F.conv2d(inputs, weights, padding=1))
            best = min(best, time.perf_counter() - start)
    return best


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # another C library
        return None
    return libc if hasattr(libc, "mallopt") else None


def _fingerprint() -> dict[str, Any]:
    """What speeds and rankings depend on."""
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": platform.processor() or platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": accelerator,
        "torch": torch.__version__,
    }
