"""Tables of a README that a command writes."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from autoprune.files import atomic_write


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Yields the lines of a Markdown table: the headings, and a line of cells for each row."""
    for number, row in enumerate([headings, *rows]):
        yield "".join(f"| {cell} " if str(cell) else "| " for cell in row) + "|"
        if not number:
            yield "|---" * len(headings) + "|"


def write_between(path: Path, text: str, *, name: str) -> None:
    """The text stands between the markers <!-- name --> and <!-- /name --> of the page.

    A page that is not there yet, or that commands alone have written, gets the markers at its end.

    Raises:
        ValueError: Somebody wrote the page, and it has no such markers.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = (path.read_text(encoding="utf-8") if path.exists() else "").partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended) and before and not before.startswith("<!-- "):
        raise ValueError(f"{path} lacks the line {begin} or {end}, between which the table belongs; add both")
    with atomic_write(path) as partial:
        partial.write_text(f"{before}{begin}\n{text}{end}{after}", encoding="utf-8")
