"""How many bytes tensors take in a file, from entropies, without coding them."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.coding.apz_file import HEADER
from autoprune.coding.coded_tensor import MOST_SHARED, TensorBits, value_bytes
from autoprune.coding.symbols import entropy_bits

TABLE_BITS = 5  # of an entropy code's table, for each value of a codebook
TENSOR_BYTES = 24  # name, dtype, shape, sizes
RECORD_BYTES = 100  # of the record of shapes, packed, of a small network
HEAD_BYTES = 12  # of a tensor beside its name and values: dtype, shape, sizes, form

FloatArray = NDArray[np.float64]


def predicted_bytes(tensors: Mapping[str, TensorBits]) -> float:
    """Returns about how many bytes an `.apz` file of these tensors has, without its record.

    Args:
        tensors: By name; nothing is coded.
    """
    return HEADER.size + sum(len(name) + TENSOR_BYTES + _tensor_bytes(tensor) for name, tensor in tensors.items())


def index_bits(kept: Any, size: Any) -> FloatArray:
    """Returns the entropy of which entries are kept, where every choice is as likely: size · H(kept ÷ size).

    >>> index_bits(2, 4)
    array(4.)

    Args:
        kept: [...] entries, in [0, size].
        size: [...] of the matrices.
    """
    kept, size = np.asarray(kept, np.float64), np.asarray(size, np.float64)
    gone = size - kept
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.where(kept > 0, kept * np.log2(size / kept), 0) + np.where(gone > 0, gone * np.log2(size / gone), 0)
    return np.asarray(bits, np.float64)


def _tensor_bytes(tensor: TensorBits) -> float:
    flat = tensor.bits.reshape(-1)
    listed = flat[flat != 0]
    places = float(index_bits(len(listed), max(len(flat), 1))) / 8
    return min(places + _values_bytes(listed, tensor.dtype), _values_bytes(flat, tensor.dtype))


def _values_bytes(values: NDArray[Any], dtype: str) -> float:
    width = value_bytes(values, dtype)
    shared, counts = np.unique(values, return_counts=True)
    if len(shared) > min(MOST_SHARED, max(1, len(values) // 2)):
        return math.ceil(width * len(values))
    coded = (entropy_bits(counts) + TABLE_BITS * len(shared)) / 8 + width * len(shared)
    return min(coded, width * len(values))
