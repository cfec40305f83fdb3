"""Evaluators of a few lines, without torch, so that a process that judges with them starts quickly."""

import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from autoprune.evaluation.outcome import Judged


def expected(kept: tuple[int, ...], batch: int) -> Judged:
    """What Scripted says of a batch. seconds: the process that said so."""
    return Judged(np.full((4, 2), sum(kept) + batch / 8, np.float32), np.array([3, 5], np.int32), float(os.getpid()))


def same(a: Judged, b: Judged) -> bool:
    return np.array_equal(a.values, b.values) and np.array_equal(a.samples, b.samples)


@dataclass
class Scripted:
    """Judges every plan, after doing what the script says of it; "die once" leaves a mark in the folder."""

    folder: Path
    script: Mapping[tuple[int, ...], str] = field(default_factory=dict)

    def judge(self, kept: tuple[int, ...], start: int, stop: int) -> list[Judged]:
        with (self.folder / f"seen-{'-'.join(map(str, kept))}").open("a") as seen:
            seen.write(f"{os.getpid()}\n")
        match self.script.get(kept):
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "die once" if self.times(kept) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(3)
            case "hang":
                time.sleep(3600)
            case "be slow":
                time.sleep(0.3)
            case "overflow":
                raise FloatingPointError("7 of its outputs are NaN or infinite")
            case "raise":
                raise KeyError("no such layer")
            case "talk":
                print("worker: out", flush=True)
                print("worker: err", file=sys.stderr, flush=True)
        return [expected(kept, batch) for batch in range(start, stop)]

    def times(self, kept: tuple[int, ...]) -> int:
        """How often the plan was begun, in whichever process."""
        seen = self.folder / f"seen-{'-'.join(map(str, kept))}"
        return len(seen.read_text().splitlines()) if seen.exists() else 0


class BreaksOnArrival:
    """Can be sent, and cannot be opened."""

    def __reduce__(self) -> tuple[object, ...]:
        return _break, ()


def _break() -> None:
    raise ImportError("no module of that name over here")


@dataclass
class Holder:
    """An evaluator with a part that is given."""

    parts: object

    def judge(self, kept: tuple[int, ...], start: int, stop: int) -> list[Judged]:
        return [expected(kept, batch) for batch in range(start, stop)]


@dataclass
class Noted:
    """Writes down that it was called, and by which process."""

    folder: Path

    def __call__(self) -> None:
        (self.folder / f"initialized-{os.getpid()}").touch()
