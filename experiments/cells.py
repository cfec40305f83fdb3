"""Studies that go on where they were stopped: each of their cells is a file."""

import json
from collections.abc import Callable
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
