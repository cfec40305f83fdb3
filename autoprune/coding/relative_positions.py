"""Where the non-zeros of a tensor lie, as relative indices with padding (Deep Compression, arXiv 1510.00149, figure 2).

A symbol says how many zeros lie between a non-zero and the one before it. The largest symbol, 2^width - 1, is padding:
it passes over as many zeros and no non-zero follows. (In the paper a padding zero is a weight, with a code of its own.)
"""

import numpy as np
from numpy.typing import NDArray

from autoprune.coding.byte_reader import ByteReader, DamagedBytes, varint
from autoprune.coding.codes import read_symbols, write_symbols
from autoprune.coding.symbols import Symbols, entropy_bits

WIDEST = 15  # bits of a relative index
NEARLY = 1.003
TABLE_BITS = 4  # about what an entropy code's table takes for a symbol that comes; one for each that does not

Positions = NDArray[np.int64]


def relative_indices(positions: Positions, width: int) -> Symbols:
    """Returns the symbols, padding included, of positions in ascending order.

    >>> relative_indices(np.array([1, 9, 10]), 2).tolist()
    [1, 3, 3, 1, 0]

    Args:
        positions: [count] ascending.
        width: Bits of a symbol, 1 to 15.
    """
    padding = 2**width - 1
    zeros = np.diff(positions, prepend=-1) - 1
    pads = zeros // padding
    symbols = np.full(len(positions) + int(pads.sum()), padding, np.int64)
    symbols[np.cumsum(pads + 1) - 1] = zeros % padding
    return symbols


def positions_of(symbols: Symbols, width: int) -> Positions:
    """Returns the positions of which `relative_indices` made the symbols.

    Args:
        symbols: Gaps, and the padding of those that are too wide [count].
        width: Bits of an index, at least 1.
    """
    padding = 2**width - 1
    ends = np.cumsum(np.where(symbols == padding, padding, symbols + 1)) - 1
    positions: Positions = ends[symbols < padding]
    return positions


def best_width(positions: Positions) -> int:
    """Returns the widest width at which the entropy of the symbols, with about their table, is nearly the least.

    Narrow symbols are about as good, and many more of them have to be decoded.
    """
    gaps = _gaps(positions)
    bits = [_about_bits(_symbol_counts(*gaps, width)) for width in range(1, WIDEST + 1)]
    return max(width for width, each in enumerate(bits, 1) if each <= NEARLY * min(bits))


def least_bytes(positions: Positions, width: int) -> float:
    """Returns what `write_positions` takes at least at this width: the entropy of the symbols.

    Args:
        positions: [count] ascending.
        width: Bits of a symbol, 1 to 15.
    """
    return entropy_bits(_symbol_counts(*_gaps(positions), width)) / 8


def write_positions(positions: Positions, width: int) -> bytes:
    """Returns the width, the number of symbols and the coded symbols.

    Args:
        positions: [count] ascending.
        width: Bits of a symbol, 1 to 15.
    """
    symbols = relative_indices(positions, width)
    return bytes([width]) + varint(len(symbols)) + write_symbols(symbols, 2**width)


def read_positions(reader: ByteReader, count: int, size: int) -> Positions:
    """Returns the positions [count] that `write_positions` wrote.

    Args:
        reader: Stands where they begin, and behind them afterwards.
        count: Of non-zeros, at most `size`.
        size: Of the tensor.

    Raises:
        DamagedBytes: What is read is no such positions.
    """
    width = reader.byte()
    if not 1 <= width <= WIDEST:
        raise DamagedBytes(f"relative indices of {width} bits; they have 1 to {WIDEST}")
    symbols = read_symbols(reader, reader.varint(count + size // (2**width - 1)), 2**width)
    positions = positions_of(symbols, width)
    if len(positions) != count or (count and positions[-1] >= size) or (len(symbols) and symbols[-1] == 2**width - 1):
        raise DamagedBytes(f"relative indices of {len(positions)} non-zeros for {count} in a tensor of {size}")
    return positions


def coded_gaps(positions: Positions, width: int) -> float:
    """Returns about the bits of the coded symbols, their table included.

    Args:
        positions: [count] ascending.
        width: Bits of a symbol, 1 to 15.
    """
    return _about_bits(_symbol_counts(*_gaps(positions), width))


def _gaps(positions: Positions) -> tuple[Positions, Positions]:
    """How many zeros lie before a non-zero, each number once, and how often it comes."""
    zeros = np.diff(positions, prepend=-1) - 1
    if zeros.max(initial=0) > len(zeros) + 2**WIDEST:  # too far apart to count up to
        return np.unique(zeros, return_counts=True)
    counts = np.bincount(zeros)
    present = np.flatnonzero(counts)
    return present, counts[present]


def _symbol_counts(zeros: Positions, counts: Positions, width: int) -> Positions:
    """How often each symbol of a width comes."""
    padding = 2**width - 1
    symbols = np.bincount(zeros % padding, weights=counts, minlength=padding + 1).astype(np.int64)
    symbols[padding] = (zeros // padding) @ counts
    return symbols


def _about_bits(counts: Positions) -> float:
    """Entropy and about the table of symbols that come so often."""
    return entropy_bits(counts) + TABLE_BITS * int(np.count_nonzero(counts)) + len(counts)
