"""Tables of a README that a command writes."""

from pathlib import Path


def write_between(path: Path, text: str, *, name: str) -> None:
    """Puts the text between the markers <!-- name --> and <!-- /name -->; at the end where there are none yet."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = (path.read_text() if path.exists() else "").partition(begin)
    after = rest.partition(end)[2]
    path.write_text(f"{before}{begin}\n{text}{end}{after}")
