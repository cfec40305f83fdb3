"""What is measured once on this machine and remembered: which settings make it fast."""

import ctypes
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

FILE = "measured.json"
GAIN = 1.03  # what has to be gained for a setting to be changed
BIG, WIDE = (256, 16, 56, 56), (16, 16, 3, 3)  # a convolution with 51 MB of activations, which glibc maps and unmaps


def cache_dir() -> Path:
    """Where autoprune keeps what can be made again: $AUTOPRUNE_CACHE, else autoprune in the user's cache folder."""
    if "AUTOPRUNE_CACHE" in os.environ:
        return Path(os.environ["AUTOPRUNE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "autoprune"


@dataclass(frozen=True, slots=True)
class MeasurementCache:
    """Answers of measurements, by what they depend on; in the folder's JSON file, or nowhere."""

    folder: Path | None

    def get_or_measure(self, question: Mapping[str, Any], measure: Callable[[], Any]) -> Any:
        """The answer that was found on this machine before, else what `measure` says now. Answers are JSON values."""
        key = json.dumps({**question, "machine": _fingerprint()}, sort_keys=True)
        known = self._read()
        if key in known:
            return known[key]
        answer = measure()
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = self.folder / f"{FILE}.{os.getpid()}"
            partial.write_text(json.dumps({**self._read(), key: answer}, indent=1) + "\n", encoding="utf-8")
            partial.replace(self.folder / FILE)  # of two that write at once one is lost, and measured again
        return answer

    def _read(self) -> dict[str, Any]:
        if self.folder is None or not (self.folder / FILE).is_file():
            return {}
        try:
            known = json.loads((self.folder / FILE).read_text(encoding="utf-8"))
        except ValueError:
            return {}  # damaged: everything in it can be measured again
        return known if isinstance(known, dict) else {}


def choose_allocator(notebook: MeasurementCache) -> bool:
    """Whether freed memory is kept for the next activation, which has been set so: it is where that is faster.

    glibc returns blocks of more than 32 MB to the system when they are freed, and every layer of a forward pass has to
    fault its pages in again.
    """
    if _glibc() is None:
        return False

    def measure() -> bool:
        before = _seconds()
        keep_freed_memory(True)
        return _seconds() * GAIN < before

    chosen = bool(notebook.get_or_measure({"question": "keep freed memory", "of": BIG}, measure))
    keep_freed_memory(chosen)
    return chosen


def keep_freed_memory(keep: bool) -> None:
    """Sets glibc's thresholds for this process; does nothing with another C library."""
    libc = _glibc()
    if libc is None:
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
    # Whoever sets a threshold ends glibc's own adjusting of it: what it would get to by itself are 32 and 64 MiB. Its
    # initial 128 KiB, fixed, would have every activation mapped anew.
    values = (2**30, 2**31 - 1, 2**28) if keep else (2**25, 2**26, 2**17)
    for option, value in zip((mmap_threshold, trim_threshold, top_pad), values, strict=True):
        libc.mallopt(option, value)


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
