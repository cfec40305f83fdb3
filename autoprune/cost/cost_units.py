"""The units that costs are written in."""

import math
from collections.abc import Mapping

COUNTS = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}
BYTES = COUNTS | {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
SECONDS = {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9}
JOULES = {"pJ": 1, "nJ": 1e3, "uJ": 1e6, "µJ": 1e6, "mJ": 1e9, "J": 1e12}


def suffixes(unit: str) -> Mapping[str, float]:
    """What may stand behind an amount of a cost that is counted in `unit` → how many of it each is; "" is one."""
    if unit == "bytes":
        return BYTES
    for family in (SECONDS, JOULES):
        if unit in family:
            return {"": 1} | {suffix: size / family[unit] for suffix, size in family.items()}
    return COUNTS


def written(value: float) -> str:
    """An amount for people: 1234567 → 1,234,567 and 0.12345678 → 0.1235."""
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1e3 else f"{value:.4g}"


def amount(value: float, unit: str) -> str:
    """As a budget says it, rounded up to four digits: 1234567 bytes → 1235000, 0.12341 ms → 0.1235ms.

    Args:
        value: In the unit, at least 0.
        unit: Of the cost, such as MACs, bytes, ms or mJ; only times and energies are written behind the number.
    """
    exponent = 3 - math.floor(math.log10(value)) if value > 0 else 0
    digits = math.ceil(value * 10.0**exponent * (1 - 1e-12)) / 10.0**exponent
    return f"{digits:.{max(0, exponent)}f}{unit if unit in SECONDS or unit in JOULES else ''}"
