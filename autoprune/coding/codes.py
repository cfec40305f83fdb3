"""The codes that a sequence of symbols may be written in. A file names one by its number; the shortest is taken."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

import numpy as np

from autoprune.coding import canonical_huffman, fixed_width, interleaved_ans
from autoprune.coding.byte_reader import ByteReader, DamagedBytes, varint
from autoprune.coding.canonical_huffman import LONGEST
from autoprune.coding.symbols import Counts, Symbols, checked

T = TypeVar("T")


class Code(Protocol):
    """A way to write symbols as bytes and to read them back. A module with these three is one.

    One that also has `least_bytes(counts)`, below which it does not get for symbols that come so often [alphabet], is
    not asked to encode where another is shorter.
    """

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    def encode(self, symbols: Symbols, alphabet: int) -> bytes:
        """Returns the bytes of symbols [count] that are in [0, alphabet).

        Args:
            symbols: Whole numbers [count], each in [0, alphabet).
            alphabet: How many different symbols there may be, at least 1.
        """
        ...

    def decode(self, data: bytes, count: int, alphabet: int) -> Symbols:
        """Returns the symbols. Raises DamagedBytes for what `encode` does not write; takes memory for `count` only.

        Args:
            data: What `encode` wrote.
            count: How many symbols there are, at least 0.
            alphabet: How many different symbols there may be, at least 1.
        """
        ...


CODES: Mapping[int, Code] = {0: fixed_width, 1: canonical_huffman, 2: interleaved_ans}
"""Number in files → code. A number keeps its meaning for ever."""


def shortest(candidates: Sequence[tuple[float, Callable[[], T]]], *, size: Callable[[T], int]) -> T:
    """Returns the shortest of what the candidates make, the first of those; what cannot be it is not made.

    Args:
        candidates: At least one; each with a size that what it makes does not fall below.
        size: Of what is made.
    """
    best: tuple[int, int, T] | None = None
    for number in sorted(range(len(candidates)), key=lambda each: candidates[each][0]):
        least, make = candidates[number]
        if best is None or (least, number) < best[:2]:
            made = make()
            if best is None or (size(made), number) < best[:2]:
                best = size(made), number, made
    if best is None:
        raise ValueError("there is nothing to choose the shortest from")
    return best[2]


def write_symbols(symbols: Symbols, alphabet: int, *, codes: Mapping[int, Code] = CODES) -> bytes:
    """Returns the shortest of the codes' encodings: its number, its length and its bytes.

    Args:
        symbols: [count] in [0, alphabet).
        alphabet: How many symbols there are, 1 to 65,536; more than 32,768 are written at a fixed width.
        codes: Those to choose from.
    """
    symbols = checked(symbols, alphabet)
    tried = codes if alphabet <= 2**LONGEST else {0: fixed_width}
    counts = np.bincount(symbols, minlength=alphabet)

    def coded(number: int) -> tuple[int, bytes]:
        return number, tried[number].encode(symbols, alphabet)

    number, data = shortest(
        [(_least_bytes(code, counts), partial(coded, each)) for each, code in tried.items()],
        size=lambda pair: len(pair[1]),
    )
    return bytes([number]) + varint(len(data)) + data


def _least_bytes(code: Code, counts: Counts) -> float:
    least = getattr(code, "least_bytes", None)
    return 0.0 if least is None else float(least(counts))


def read_symbols(reader: ByteReader, count: int, alphabet: int, *, codes: Mapping[int, Code] = CODES) -> Symbols:
    """Returns the symbols [count] that `write_symbols` wrote.

    Args:
        reader: Stands where they begin, and behind them afterwards.
        count: How many there are.
        alphabet: The same as when they were written.
        codes: Those that may be named.

    Raises:
        DamagedBytes: What is read is no such sequence.
    """
    number = reader.byte()
    if number not in codes:
        raise DamagedBytes(f"symbols are in code {number}; the codes are {sorted(codes)}")
    data = reader.take(reader.varint(reader.left))
    symbols = codes[number].decode(data, count, alphabet)
    if len(symbols) and symbols.max() >= alphabet:
        raise DamagedBytes(f"symbol {symbols.max()} in an alphabet of {alphabet}")
    return symbols
