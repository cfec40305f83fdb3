"""How far a stage of a job is: a bar in a terminal, a line now and then elsewhere."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from autoprune.report.wording import DASH, duration

PATIENCE_S = 2.0  # what takes longer shows how far it is
LINES = 10  # printed in a whole stage where there is no terminal


class StageProgress:
    """Shows how much of a stage is done, a note and the time left, while it is open.

    >>> with StageProgress(console=Console(quiet=True)) as progress:
    ...     progress.update(1, of=300, phase="search", note=search_note(best=None, score=-0.7))
    """

    def __init__(self, *, console: Console | None = None, after_s: float = 0.0) -> None:
        """Shows nothing of what ends within `after_s` seconds, and from then on what is going on.

        Args:
            console: Where it is shown; None for the terminal.
            after_s: Seconds, at least 0.
        """
        self._console, self._after_s = console or Console(), after_s
        self._latest: tuple[int, int, str, str] | None = None  # what was not shown yet
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._lines = 0
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.fields[phase]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}", style="cyan"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("", total=None, phase="", note="")

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        if self._bar is not None and not self._after_s:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._latest = None
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, *, of: int, phase: str, note: str) -> None:
        """Step `done` `of` so many, counted from 1; 0 before the first.

        Args:
            done: How many are done.
            of: How many there are.
            phase: What is going on.
            note: What is said beside the bar.
        """
        with self._lock:
            left_s = self._after_s - (time.monotonic() - self._start)
            if left_s <= 0:
                self._latest = None
                self._show(done, of, phase, note)
                return
            self._latest = done, of, phase, note
            if self._timer is None:  # the stage that is going on may be one long step
                self._timer = threading.Timer(left_s, self._show_latest)
                self._timer.daemon = True
                self._timer.start()

    def _show_latest(self) -> None:
        with self._lock:
            if self._latest is not None:
                self._show(*self._latest)

    def _show(self, done: int, of: int, phase: str, note: str) -> None:
        if self._bar is not None:
            self._bar.start()  # which does nothing where it has begun
            self._bar.update(self._task, completed=done, total=of, phase=phase, note=note)
            return
        if of == 1:  # a step whose parts are not counted: only that it is being taken can be said
            if not done:
                self._console.print(f"{phase} …", markup=False, highlight=False, soft_wrap=True)
            return
        line = done * LINES // of
        if line == self._lines and done > 1:
            return
        self._lines = line
        spent = time.monotonic() - self._start
        left = f"{duration(spent / done * (of - done))} left" if 0 < done < of else ""
        text = "  ".join(filter(None, (f"{phase} {done}/{of}", note, left)))
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def announced(what: str, *, after_s: float = PATIENCE_S, console: Console | None = None) -> Iterator[None]:
    """Says what the block does, where it takes longer.

    Args:
        what: Is going on, such as "loading the task".
        after_s: Seconds that a person waits without a word.
        console: Where it is said; None for the terminal.
    """
    with StageProgress(console=console, after_s=after_s) as progress:
        progress.update(0, of=1, phase=what, note="")
        yield
        progress.update(1, of=1, phase=what, note="")


def search_note(*, best: float | None, score: float) -> str:
    return f"best {DASH if best is None else f'{best:.4f}'}  last {score:.4f}"
