"""Ranges in signatures are kept by whoever has them, so that tests of single classes need not try each of them."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Lt

from autoprune import ranges
from autoprune.ranges import Count, FinitePositive, Fraction, Positive, check_fields, check_value, checked

PACKAGE = Path(ranges.__file__).parent
RANGES = {name for name in vars(ranges) if name[0].isupper() and hasattr(getattr(ranges, name), "__metadata__")}


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (0, Count, "x must be at least 1, got 0"),
        (1.5, Count, "x must be a whole number, got 1.5"),
        (True, Count, "x must be a whole number, got True"),
        (0.0, Positive, "x must be above 0, got 0.0"),
        (float("nan"), Fraction, r"x must be in \[0, 1\], got nan"),
        (float("inf"), FinitePositive, r"x must be in \(0, inf\), got inf"),
        (3, Annotated[int, Ge(0), Lt(3)], r"x must be in \[0, 3\), got 3"),
        (None, Count | None, None),
        ("2", Count | None, "x must be a whole number or None, got '2'"),
        ((4, 0), tuple[Count, ...], r"x must be a list of which each is at least 1, got \(4, 0\)"),
        ("ab", tuple[str, ...], "x must be a list, got 'ab'"),
        ((1,), tuple[float, float], r"x must be a list of 2, got \(1,\)"),
        ({"a": 0.0}, Mapping[str, Positive], "x must be a mapping of which each is above 0"),
        ("c", Literal["a", "b"], "x must be a or b, got 'c'"),
    ],
)
def test_a_value_outside_its_range_is_named_with_what_is_allowed(value: Any, hint: Any, message: str | None) -> None:
    if message is None:
        check_value(value, hint, "x")
    else:
        with pytest.raises((ValueError, TypeError), match=message):
            check_value(value, hint, "x")


def test_fields_and_arguments_are_checked_by_their_hints() -> None:
    @dataclass(frozen=True)
    class Settings:
        steps: Count
        widths: tuple[Count, ...] = ()

        def __post_init__(self) -> None:
            check_fields(self, "room")

    @checked
    def doubled(steps: Count, *, rate: Positive = 1.0) -> float:
        return 2 * steps * rate

    assert Settings(1, [2, 3]).widths == (2, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"room\.steps must be at least 1, got 0"):
        Settings(0)
    assert doubled(2, rate=0.5) == 2
    with pytest.raises(ValueError, match="rate must be above 0, got 0"):
        doubled(2, rate=0)


def test_every_dataclass_with_ranges_checks_its_fields() -> None:
    unchecked = []
    for path in sorted(PACKAGE.rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        imports = [n for n in nodes if isinstance(n, ast.ImportFrom) and n.module == ranges.__name__]
        taken = {alias.name for each in imports for alias in each.names} & RANGES
        for node in nodes:
            if isinstance(node, ast.ClassDef) and "dataclass" in "".join(map(ast.unparse, node.decorator_list)):
                hints = [each.annotation for each in node.body if isinstance(each, ast.AnnAssign)]
                names = {each.id for hint in hints for each in ast.walk(hint) if isinstance(each, ast.Name)}
                if names & taken and "check_fields(self" not in ast.unparse(node):
                    unchecked.append(f"{node.name} in {path.relative_to(PACKAGE)}")
    assert {"Count", "Positive", "Fraction"} <= RANGES
    assert unchecked == []
