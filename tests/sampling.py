"""Which values of a long parametrisation every run tries, and which only the slow stage."""

from collections.abc import Collection, Sequence
from typing import Any

import pytest


def covering(values: Sequence[Any], fast: Collection[Any]) -> list[Any]:
    """All the values as parameters; those that are not in `fast`, which covers what they differ in, are slow."""
    unknown = [value for value in fast if value not in values]
    assert not unknown, f"{unknown} are none of {list(values)}"
    return [pytest.param(value, marks=() if value in fast else pytest.mark.slow) for value in values]
