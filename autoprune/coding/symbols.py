"""Sequences of symbols: whole numbers from 0 to the size of an alphabet, and how many bits they hold."""

import numpy as np
from numpy.typing import NDArray

Symbols = NDArray[np.int64]
Counts = NDArray[np.int64]
MOST = 2**16  # symbols in an alphabet


def width_of(alphabet: int) -> int:
    """Returns the bits that one of so many symbols takes; 0 for an alphabet of one."""
    return (alphabet - 1).bit_length()


def entropy_bits(counts: Counts) -> float:
    """Returns the Shannon bound of a sequence in bits: Σ -count log2(count ÷ all).

    >>> entropy_bits(np.array([4, 4]))
    8.0

    Args:
        counts: How often each symbol stands in it [alphabet].
    """
    used = counts[counts > 0].astype(np.float64)
    return float((used * (np.log2(used.sum()) - np.log2(used))).sum()) if len(used) else 0.0


def checked(symbols: Symbols, alphabet: int) -> Symbols:
    """Returns the symbols as int64. Raises ValueError where one is not in [0, alphabet), or there are too many.

    Args:
        symbols: Whole numbers [count].
        alphabet: How many different symbols there may be, at least 1.
    """
    if not 1 <= alphabet <= MOST:
        raise ValueError(f"an alphabet has 1 to {MOST} symbols, got {alphabet}")
    symbols = np.asarray(symbols, np.int64).reshape(-1)
    if len(symbols) and not 0 <= symbols.min() <= symbols.max() < alphabet:
        raise ValueError(f"symbols must be in [0, {alphabet}), got {symbols.min()} to {symbols.max()}")
    return symbols
