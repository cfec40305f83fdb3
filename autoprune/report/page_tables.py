"""The tables of pages: rows of cells, which parts.html.jinja draws, on a narrow screen as cards."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cell:
    """One value."""

    text: str
    """What stands there."""
    small: str = ""
    """A second line."""
    hover: str = ""
    """What a pointer over it shows."""
    heat: int = 0
    """How much of its colour is behind it, in per cent."""
    colour: str = "searched"
    """Of the heat, a name in COLOURS."""
    style: str = ""
    """CSS classes: strong, faint, extra (not on narrow screens), words, warn, best."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table."""

    label: str
    """What the line begins with."""
    cells: Sequence[Cell]
    """One for each column."""
    colour: str | None = None
    """Of the dot before the label, a name in COLOURS."""
    note: str = ""
    """Behind the label."""
    rank: str = ""
    """Before the label."""
    chosen: bool = False
    """Whether the row stands out; it has a badge where `badge` says so."""
    badge: str = ""
    """The word in the badge; empty: none."""


@dataclass(frozen=True, slots=True)
class PageTable:
    """Rows under named columns."""

    columns: Sequence[tuple[str, str]]
    """(group, label) of each; a group is a heading over neighbouring columns, or empty."""
    rows: Sequence[Row]
    """From the top."""
    style: str = ""
    """CSS classes: heats, grid (which scrolls instead of becoming cards), fine, wordy."""

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Each group and how many columns it is over; none where no column has one."""
        runs = itertools.groupby(self.columns, key=lambda column: column[0])
        spans = [(group, len(list(columns))) for group, columns in runs]
        return spans if any(group for group, _ in spans) else []

    @property
    def begins(self) -> list[bool]:
        """Of each column whether a group begins there."""
        groups = [group for group, _ in self.columns]
        return [bool(self.groups) and (i == 0 or group != groups[i - 1]) for i, group in enumerate(groups)]
