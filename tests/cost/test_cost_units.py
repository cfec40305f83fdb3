import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.cost.cost_units import amount, suffixes, written


@pytest.mark.parametrize(
    ("unit", "suffix", "each"),
    [
        ("ms", "", 1), ("ms", "ms", 1), ("ms", "us", 1e-3), ("ms", "µs", 1e-3), ("ms", "s", 1e3), ("us", "ms", 1e3),
        ("mJ", "", 1), ("mJ", "J", 1e3), ("mJ", "uJ", 1e-3), ("mJ", "nJ", 1e-6),
        ("bytes", "KiB", 1024), ("bytes", "kB", 1000), ("bytes", "", 1), ("MACs", "M", 1e6), ("parameters", "k", 1e3),
    ],
)  # fmt: skip
def test_a_suffix_is_so_many_of_the_unit(unit: str, suffix: str, each: float) -> None:
    assert suffixes(unit)[suffix] == each


def test_times_and_energies_take_no_thousands() -> None:
    assert "k" not in suffixes("ms")
    assert "B" not in suffixes("mJ")
    assert "s" not in suffixes("mJ")


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567.0, "1,234,567"), (12.0, "12"), (0.12345678, "0.1235"), (3.5, "3.5"), (1234.56, "1,235"), (0.0, "0")],
)
def test_amounts_are_written_for_people(value: float, text: str) -> None:
    assert written(value) == text


@given(st.floats(1e-9, 1e12))
def test_what_a_budget_is_told_is_no_less_and_four_digits(value: float) -> None:
    text = amount(value, "ms")
    assert text.endswith("ms")
    told = float(text.removesuffix("ms"))
    assert value * (1 - 1e-11) <= told <= value * 1.0011
