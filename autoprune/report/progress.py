"""How far a search is: a bar in a terminal, a line now and then elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from autoprune.report.wording import DASH, duration

LINES = 10  # printed in a whole search where there is no terminal


class SearchProgress:
    """Shows evaluations done, the best score so far, this score and the time left, while it is open.

    >>> with SearchProgress(limit=300, console=Console(quiet=True)) as progress:
    ...     progress.update(1, best=None, score=-0.7, phase="search")
    """

    def __init__(self, *, limit: int, console: Console | None = None) -> None:
        self.limit = limit
        self._console = console or Console()
        self._start = time.monotonic()
        self._lines = 0
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.fields[phase]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("best {task.fields[best]}  last {task.fields[score]}", style="cyan"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("search", total=limit, phase="search", best=DASH, score=DASH)

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, evaluation: int, *, best: float | None, score: float, phase: str) -> None:
        """`evaluation` of the limit is done, counted from 1."""
        shown_best, shown = DASH if best is None else f"{best:.4f}", f"{score:.4f}"
        if self._bar is not None:
            self._bar.update(self._task, completed=evaluation, phase=phase, best=shown_best, score=shown)
            return
        line = evaluation * LINES // self.limit
        if line == self._lines and evaluation > 1:
            return
        self._lines = line
        spent = time.monotonic() - self._start
        left = duration(spent / evaluation * (self.limit - evaluation))
        self._console.print(
            f"{phase} {evaluation}/{self.limit}  best {shown_best}  last {shown}  {left} left",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
