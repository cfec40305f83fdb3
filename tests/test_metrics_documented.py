"""Each key that the code logs is explained in docs/metrics.md, and the document explains no room that logs nothing."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = ("search", "cost", "agent", "recover", "schedule", "result", "policy")
KEY = re.compile(rf"`((?:{'|'.join(ROOMS)})/[\w/]+)`")
DOCUMENTED = set(KEY.findall((ROOT / "docs" / "metrics.md").read_text()))


def logged_keys() -> Iterator[tuple[str, str]]:
    """(file, pattern) for every string that is a key of a dict, or a subscript, and starts with a room and a slash.

    What an f-string fills in at run time stands for any text.
    """
    for file in sorted((ROOT / "autoprune").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            keys: list[ast.expr | None] = []
            if isinstance(node, ast.Dict):
                keys = [*node.keys]
            elif isinstance(node, ast.DictComp):
                keys = [node.key]
            elif isinstance(node, ast.Subscript):
                keys = [node.slice]
            for key in keys:
                pattern = _pattern(key)
                if pattern.startswith(tuple(f"{room}/" for room in ROOMS)) and not pattern.endswith("/\\*"):
                    yield file.name, pattern


def _pattern(key: ast.expr | None) -> str:
    if isinstance(key, ast.Constant) and isinstance(key.value, str):
        return re.escape(key.value)
    if isinstance(key, ast.JoinedStr):
        return "".join(re.escape(str(p.value)) if isinstance(p, ast.Constant) else r"[\w/]+" for p in key.values)
    return ""


def test_every_logged_key_is_documented() -> None:
    missing = [
        f"{file}: {pattern}"
        for file, pattern in logged_keys()
        if not any(re.fullmatch(pattern, key) for key in DOCUMENTED)
    ]
    assert not missing, f"docs/metrics.md does not explain {missing}"


def test_every_documented_key_is_of_a_room_and_has_an_explanation() -> None:
    assert DOCUMENTED
    rows = [line for line in (ROOT / "docs" / "metrics.md").read_text().splitlines() if line.startswith("| `")]
    assert all(cell.strip() for row in rows for cell in row.strip("|").split("|"))
