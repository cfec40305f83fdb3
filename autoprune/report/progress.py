"""How far a stage of a job is: a bar in a terminal, a line now and then elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from autoprune.report.wording import DASH, duration

LINES = 10  # printed in a whole stage where there is no terminal


class StageProgress:
    """Shows how much of a stage is done, a note and the time left, while it is open.

    >>> with StageProgress(console=Console(quiet=True)) as progress:
    ...     progress.update(1, of=300, phase="search", note=search_note(best=None, score=-0.7))
    """

    def __init__(self, *, console: Console | None = None, after_s: float = 0.0) -> None:
        """Shows nothing of what ends within `after_s` seconds, on the terminal or on another console."""
        self._console, self._after_s = console or Console(), after_s
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
        if time.monotonic() - self._start < self._after_s:
            return
        if self._bar is not None:
            self._bar.start()  # which does nothing where it has begun
            self._bar.update(self._task, completed=done, total=of, phase=phase, note=note)
            return
        line = done * LINES // of
        if line == self._lines and done > 1:
            return
        self._lines = line
        spent = time.monotonic() - self._start
        left = f"{duration(spent / done * (of - done))} left" if done else ""
        self._console.print(f"{phase} {done}/{of}  {note}  {left}", markup=False, highlight=False, soft_wrap=True)


def search_note(*, best: float | None, score: float) -> str:
    return f"best {DASH if best is None else f'{best:.4f}'}  last {score:.4f}"
