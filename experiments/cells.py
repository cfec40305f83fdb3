"""Studies that go on where they were stopped: each of their cells is a file, and an archive of these is committed."""

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from autoprune.files import atomic_write


def kept(cells: Path, name: str, make: Callable[[], Any]) -> Any:
    """What make() returns, in JSON's values; it is called once, and its answer is read from its file from then on."""
    path = cells / f"{name}.json"
    if not path.exists():
        content = json.dumps(make())
        with atomic_write(path) as partial:
            partial.write_text(content)
        print(f"{name} is there", flush=True)
    return json.loads(path.read_text())


def unpack(archive: Path, cells: Path) -> None:
    """The archive's cells are kept, too, beside those that are kept already, which are not touched.

    Args:
        archive: As `pack` writes it; nothing happens where there is none.
        cells: The folder of the cells, and of folders of them.
    """
    for name, content in _read(archive):
        path = cells / f"{name}.json"
        if not path.exists():
            with atomic_write(path) as partial:
                partial.write_text(json.dumps(content))


def pack(cells: Path, archive: Path) -> None:
    """The archive holds all cells that are kept: a line of JSON for each, its name and its content.

    The same cells give the same bytes.
    """
    names = sorted(path.relative_to(cells).with_suffix("").as_posix() for path in cells.rglob("*.json"))
    lines = (json.dumps([name, json.loads((cells / f"{name}.json").read_text())]) + "\n" for name in names)
    with atomic_write(archive) as partial:
        partial.write_bytes(gzip.compress("".join(lines).encode(), mtime=0))


def _read(archive: Path) -> Iterable[tuple[str, Any]]:
    if archive.exists():
        for line in gzip.decompress(archive.read_bytes()).decode().splitlines():
            name, content = json.loads(line)
            yield name, content
