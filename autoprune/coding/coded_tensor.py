"""A tensor as few bytes, bit for bit: which entries are not zero, and what their values are.

Nothing is rounded here. What was made simple before (by pruning, shared values, scaled whole numbers, half precision)
is recognised and written accordingly; of all forms that give back the same bits the shortest is taken.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from autoprune.coding.byte_reader import ByteReader, DamagedBytes, several, varint
from autoprune.coding.codes import read_symbols, shortest, write_symbols
from autoprune.coding.relative_positions import best_width, least_bytes, read_positions, write_positions
from autoprune.coding.symbols import entropy_bits

Bits = NDArray[Any]  # unsigned integers: the patterns of the values
Values = Literal["raw", "shared", "scaled"]
# number in files → (name as torch's, bytes)
DTYPES: dict[int, tuple[str, int]] = {
    0: ("float32", 4), 1: ("float16", 2), 2: ("bfloat16", 2), 3: ("float64", 8),
    4: ("int64", 8), 5: ("int32", 4), 6: ("int16", 2), 7: ("int8", 1), 8: ("uint8", 1), 9: ("bool", 1),
}  # fmt: skip
NUMBERS = {name: number for number, (name, _) in DTYPES.items()}
VALUES: tuple[Values, ...] = ("raw", "shared", "scaled")
SPARSE, COLUMNS = 1, 2  # bits of a layout
MOST_SHARED = 2**15  # values in a codebook
STEPS = 127  # of a scaled whole number, on either side of zero
LEVELS = 2 * STEPS + 1
MOST_DIMENSIONS = 8


@dataclass(frozen=True, slots=True, eq=False)
class TensorBits:
    """A tensor as the bit patterns of its values."""

    dtype: str
    """As torch calls it, such as float32."""
    bits: Bits
    """[shape] little-endian unsigned integers of the dtype's size."""


@dataclass(frozen=True, slots=True)
class TensorHead:
    """What a coded tensor is, known before anything is decoded."""

    dtype: str
    """As torch calls it."""
    shape: tuple[int, ...]
    """Of the tensor."""

    @property
    def size(self) -> int:
        """Entries."""
        return math.prod(self.shape)

    @property
    def decoded_bytes(self) -> int:
        """What the tensor takes in memory."""
        return self.size * DTYPES[NUMBERS[self.dtype]][1]


@dataclass(frozen=True, slots=True)
class TensorParts:
    """Where the bytes of a coded tensor go."""

    kept: int
    """Entries that are not zero where they are listed, all where they are not."""
    index_bits: int
    """Of a relative index before it is coded; 0 where all entries are written."""
    value_bits: int
    """Of a code before it is coded, or of a value that is written as it is."""
    positions: int
    """Bytes of the coded relative indices."""
    table: int
    """Bytes of the codebook or the scales."""
    codes: int
    """Bytes of the coded values."""


def write_head(head: TensorHead) -> bytes:
    """Returns the dtype's number, the number of dimensions and the dimensions."""
    if len(head.shape) > MOST_DIMENSIONS:
        raise ValueError(f"a tensor has at most {MOST_DIMENSIONS} dimensions, got {len(head.shape)}")
    return bytes([NUMBERS[head.dtype], len(head.shape)]) + several(list(head.shape))


def read_head(reader: ByteReader) -> TensorHead:
    """Returns what `write_head` wrote. Raises DamagedBytes for anything else."""
    number, dimensions = reader.byte(), reader.byte()
    if number not in DTYPES or dimensions > MOST_DIMENSIONS:
        raise DamagedBytes(f"a tensor of dtype {number} with {dimensions} dimensions")
    head = TensorHead(DTYPES[number][0], tuple(reader.varint(2**40) for _ in range(dimensions)))
    if head.size >= 2**40:
        raise DamagedBytes(f"a tensor of shape {list(head.shape)}")
    return head


def write_body(tensor: TensorBits) -> bytes:
    """Returns the shortest form of the tensor's values."""
    return _shortest(tensor)[0]


def parts_of(tensor: TensorBits) -> TensorParts:
    """Returns where the bytes go in the shortest form."""
    return _shortest(tensor)[1]


def read_body(data: bytes, head: TensorHead) -> TensorBits:
    """Returns the tensor whose values `write_body` wrote.

    Args:
        data: All bytes of the body.
        head: What the tensor is; memory for so many entries is taken, and no more than some times that.

    Raises:
        DamagedBytes: The bytes are not what `write_body` writes for such a tensor.
    """
    reader, size, unsigned = ByteReader(data), head.size, _unsigned(head.dtype)
    layout, kind = reader.byte(), reader.byte()
    if layout not in (0, SPARSE, SPARSE | COLUMNS) or kind >= len(VALUES):
        raise DamagedBytes(f"a tensor of layout {layout} with values of kind {kind}")
    positions = None
    if layout & SPARSE:
        positions = read_positions(reader, reader.varint(size), size)
    rows = _rows_of(head.shape)
    count = size if positions is None else len(positions)
    if VALUES[kind] == "scaled":
        if head.dtype != "float32" or layout & COLUMNS or not len(head.shape):
            raise DamagedBytes(f"scaled values of a {head.dtype} tensor of shape {list(head.shape)}")
        scales = np.frombuffer(reader.take(4 * rows), "<f4")
        codes = read_symbols(reader, count, LEVELS) - STEPS
        per_row = size // rows if rows else 1
        row = (np.arange(size) if positions is None else positions) // max(per_row, 1)
        with np.errstate(over="ignore", invalid="ignore"):  # of scales that no encoder writes
            values = (scales[row] * codes.astype(np.float32)).view(np.uint32)
    elif VALUES[kind] == "shared":
        shared = _read_values(reader, reader.varint(min(size, MOST_SHARED)), head.dtype)
        if not len(shared) and count:
            raise DamagedBytes("a codebook without values")
        values = shared[read_symbols(reader, count, max(len(shared), 1))] if count else shared[:0]
    else:
        values = _read_values(reader, count, head.dtype)
    reader.end()
    if positions is None:
        return TensorBits(head.dtype, values.reshape(head.shape))
    flat = np.zeros(size, unsigned)
    if layout & COLUMNS:
        by_columns = np.zeros(size, unsigned)
        by_columns[positions] = values
        flat = by_columns.reshape(-1, rows).T.reshape(-1) if size else by_columns
    else:
        flat[positions] = values
    return TensorBits(head.dtype, flat.reshape(head.shape))


Form = tuple[bytes, TensorParts]


def _shortest(tensor: TensorBits) -> Form:
    """The shortest of all forms, with where its bytes go."""
    values = _SharedValues.of(tensor.bits)
    forms = [form for listing in _listings(tensor) for form in listing.forms(tensor, values, _scaled(tensor))]
    return shortest(forms, size=lambda form: len(form[0]))


@dataclass(frozen=True, slots=True, eq=False)
class _SharedValues:
    """The distinct values of a tensor in ascending order of their patterns, and which one each entry is."""

    shared: Bits
    codes: NDArray[np.int64]  # [entries]
    counts: NDArray[np.int64]  # of each value

    @classmethod
    def of(cls, bits: Bits) -> Self:
        return cls(*np.unique(bits.reshape(-1), return_inverse=True, return_counts=True))


@dataclass(frozen=True, slots=True, eq=False)
class _Listing:
    """Which entries are written, and in which order."""

    layout: int
    entries: NDArray[np.int64] | slice  # of the tensor, row by row
    positions: NDArray[np.int64] | None  # in the order that is written; None: all entries are

    def forms(
        self, tensor: TensorBits, values: _SharedValues, scaled: tuple[Bits, NDArray[np.int64]] | None
    ) -> "Iterator[tuple[float, Callable[[], Form]]]":
        """Every form with these entries: the bytes that it has at least, and what writes it."""
        flat = tensor.bits.reshape(-1)
        count = len(flat) if self.positions is None else len(self.positions)
        width = 0 if self.positions is None else best_width(self.positions)
        listed = 2.0 if self.positions is None else 2 + least_bytes(self.positions, width)

        @cache
        def index() -> bytes:
            if self.positions is None:
                return b""
            return varint(len(self.positions)) + write_positions(self.positions, width)

        def form(kind: Values, make: Callable[[], Written]) -> Form:
            table, codes, bits = make()
            body = bytes([self.layout, VALUES.index(kind)]) + index() + table + codes
            return body, TensorParts(count, width, bits, len(index()), len(table), len(codes))

        raw = value_bytes(values.shared, tensor.dtype)
        yield listed + raw * count, lambda: form("raw", lambda: _raw(flat[self.entries], tensor.dtype))
        begin = 0 if self.positions is None else 1  # zeros, the first value, are not listed
        shared, counts = values.shared[begin:], values.counts[begin:]
        if len(shared) <= min(MOST_SHARED, max(1, count // 2)):
            least = listed + raw * len(shared) + entropy_bits(counts) / 8
            yield (
                least,
                lambda: form("shared", lambda: _shared(shared, values.codes[self.entries] - begin, tensor.dtype)),
            )
        if scaled is not None and not self.layout & COLUMNS:
            scales, steps = scaled
            least = listed + scales.nbytes + entropy_bits(np.bincount(steps[self.entries])) / 8
            yield (
                least,
                lambda: form("scaled", lambda: (scales.tobytes(), write_symbols(steps[self.entries], LEVELS), 8)),
            )


def _listings(tensor: TensorBits) -> list[_Listing]:
    """All entries; those that are not zero, row by row and column by column."""
    flat, rows = tensor.bits.reshape(-1), _rows_of(tensor.bits.shape)
    listings = [_Listing(0, slice(None), None)]
    if (flat == 0).any():
        present = np.flatnonzero(flat)
        listings.append(_Listing(SPARSE, present, present))
        if 1 < rows < len(flat):
            columns = np.flatnonzero(flat.reshape(rows, -1).T)
            row_length = len(flat) // rows
            listings.append(_Listing(SPARSE | COLUMNS, columns % rows * row_length + columns // rows, columns))
    return listings


Written = tuple[bytes, bytes, int]  # the table, the codes, and the bits of a code before it is coded


def _raw(values: Bits, dtype: str) -> Written:
    stored = _write_values(values, dtype)
    return b"", stored, 8 * DTYPES[NUMBERS[dtype]][1] // (2 if stored[:1] == b"\x01" else 1)


def _shared(shared: Bits, codes: NDArray[np.int64], dtype: str) -> Written:
    """The distinct values, and which one each is."""
    alphabet = max(len(shared), 1)
    coded = write_symbols(codes, alphabet) if len(codes) else b""
    return varint(len(shared)) + _write_values(shared, dtype), coded, (alphabet - 1).bit_length()


def _scaled(tensor: TensorBits) -> tuple[Bits, NDArray[np.int64]] | None:
    """A scale for every row and a number of steps, at most 127, for every value; None where it is not made of those.

    The scale is taken from the row's largest value, which has to be 127 times it.
    """
    rows = _rows_of(tensor.bits.shape)
    if tensor.dtype != "float32" or not tensor.bits.ndim or not tensor.bits.size:
        return None
    values = tensor.bits.reshape(rows, -1).view(np.float32)
    if not np.isfinite(values).all():
        return None
    scales = np.abs(values).max(axis=1) / np.float32(STEPS)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        codes = np.where(scales[:, None] > 0, np.rint(values / scales[:, None]), 0)
    if not (np.abs(codes) <= STEPS).all():  # of a scale that is too small to be divided by
        return None
    codes = codes.astype(np.int64)
    if not np.array_equal((scales[:, None] * codes.astype(np.float32)).view(np.uint32), tensor.bits.reshape(rows, -1)):
        return None
    return scales.astype("<f4"), codes.reshape(-1) + STEPS


def value_bytes(values: Bits, dtype: str) -> int:
    """Returns the bytes of a value that is written as it is: 2 of float32 that half precision gives back bit for bit.

    Args:
        values: Their patterns [count].
        dtype: As torch calls it.
    """
    if dtype == "float32" and len(values):
        wide = values.astype(np.uint32).view(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            if np.array_equal(wide.astype("<f2").astype(np.float32).view(np.uint32), values):
                return 2
    return DTYPES[NUMBERS[dtype]][1]


def _write_values(values: Bits, dtype: str) -> bytes:
    """0 and the values as they are, or 1 and float32 values at half precision where that changes no bit."""
    if value_bytes(values, dtype) < DTYPES[NUMBERS[dtype]][1]:
        return b"\x01" + values.astype(np.uint32).view(np.float32).astype("<f2").tobytes()
    return b"\x00" + values.astype(_unsigned(dtype)).tobytes()


def _read_values(reader: ByteReader, count: int, dtype: str) -> Bits:
    precision, size = reader.byte(), DTYPES[NUMBERS[dtype]][1]
    if precision not in (0, 1) or (precision and dtype != "float32"):
        raise DamagedBytes(f"values of precision {precision} in a {dtype} tensor")
    if precision:
        half = np.frombuffer(reader.take(2 * count), "<f2")
        return half.astype(np.float32).view(np.uint32)
    return np.frombuffer(reader.take(size * count), _unsigned(dtype))


def _unsigned(dtype: str) -> str:
    return f"<u{DTYPES[NUMBERS[dtype]][1]}"


def _rows_of(shape: tuple[int, ...]) -> int:
    """How many rows the tensor has as a matrix: its first dimension, of which convolutions' is the output channels."""
    return shape[0] if shape else 1
