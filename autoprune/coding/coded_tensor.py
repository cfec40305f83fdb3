"""A tensor as few bytes, bit for bit: which entries are not zero, and what their values are.

Nothing is rounded here. What was made simple before (by pruning, shared values, scaled whole numbers, half precision)
is recognised and written accordingly; of all forms that give back the same bits the shortest is taken.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autoprune.coding.byte_reader import ByteReader, DamagedBytes, several, varint
from autoprune.coding.codes import read_symbols, write_symbols
from autoprune.coding.relative_positions import read_positions, write_positions

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
    return min((body for body, _ in _forms(tensor)), key=len)


def parts_of(tensor: TensorBits) -> TensorParts:
    """Returns where the bytes go in the shortest form."""
    return min(_forms(tensor), key=lambda form: len(form[0]))[1]


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
        codes = read_symbols(reader, count, 2 * STEPS + 1) - STEPS
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


def _forms(tensor: TensorBits) -> "list[tuple[bytes, TensorParts]]":
    """Every form of the tensor, with where its bytes go."""
    flat, shape = tensor.bits.reshape(-1), tensor.bits.shape
    rows = _rows_of(shape)
    orders: list[tuple[int, Bits, NDArray[np.int64] | None]] = [(0, flat, None)]
    if (flat == 0).any():
        orders.append((SPARSE, flat, np.flatnonzero(flat)))
        if 1 < rows < len(flat):
            columns = np.ascontiguousarray(flat.reshape(rows, -1).T).reshape(-1)
            orders.append((SPARSE | COLUMNS, columns, np.flatnonzero(columns)))
    forms = []
    for layout, ordered, positions in orders:
        index = b"" if positions is None else varint(len(positions)) + write_positions(positions)
        index_bits = 0 if positions is None else index[len(varint(len(positions)))]
        listed = ordered if positions is None else ordered[positions]
        for kind in VALUES:
            if kind == "scaled":
                written = None if layout & COLUMNS else _scaled(tensor, positions)
            else:
                written = _shared(listed, tensor.dtype) if kind == "shared" else _raw(listed, tensor.dtype)
            if written is not None:
                table, codes, bits = written
                body = bytes([layout, VALUES.index(kind)]) + index + table + codes
                forms.append((body, TensorParts(len(listed), index_bits, bits, len(index), len(table), len(codes))))
    return forms


Written = tuple[bytes, bytes, int]  # the table, the codes, and the bits of a code before it is coded


def _raw(values: Bits, dtype: str) -> Written:
    stored = _write_values(values, dtype)
    return b"", stored, 8 * DTYPES[NUMBERS[dtype]][1] // (2 if stored[:1] == b"\x01" else 1)


def _shared(values: Bits, dtype: str) -> Written | None:
    """The distinct values in ascending order of their patterns, and which one each is; None where they are many."""
    shared, codes = np.unique(values, return_inverse=True)
    if len(shared) > min(MOST_SHARED, max(1, len(values) // 2)):
        return None
    alphabet = max(len(shared), 1)
    coded = write_symbols(codes.astype(np.int64), alphabet) if len(values) else b""
    return varint(len(shared)) + _write_values(shared, dtype), coded, (alphabet - 1).bit_length()


def _scaled(tensor: TensorBits, positions: NDArray[np.int64] | None) -> Written | None:
    """A scale for every row and a whole number of at most 127 for every value; None where the tensor is not of those.

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
    flat = codes.reshape(-1) if positions is None else codes.reshape(-1)[positions]
    return scales.astype("<f4").tobytes(), write_symbols(flat + STEPS, 2 * STEPS + 1), 8


def _write_values(values: Bits, dtype: str) -> bytes:
    """0 and the values as they are, or 1 and float32 values at half precision where that changes no bit."""
    if dtype == "float32" and len(values):
        wide = values.astype(np.uint32).view(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            half = wide.astype("<f2")
        if np.array_equal(half.astype(np.float32).view(np.uint32), values):
            return b"\x01" + half.tobytes()
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
