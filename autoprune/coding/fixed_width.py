"""Every symbol in as many bits as the largest one needs: no table, and what entropy codes are compared with."""

import numpy as np

from autoprune.coding.byte_reader import DamagedBytes
from autoprune.coding.symbols import Counts, Symbols, width_of

name = "fixed_width"


def encode(symbols: Symbols, alphabet: int) -> bytes:
    """Returns the symbols, each in the bits that `alphabet - 1` needs, the highest bit first.

    Args:
        symbols: [count] in [0, alphabet).
        alphabet: How many symbols there are, at least 1.
    """
    width = width_of(alphabet)
    bits = symbols[:, None] >> np.arange(width - 1, -1, -1) & 1
    return np.packbits(bits.astype(np.uint8)).tobytes()


def decode(data: bytes, count: int, alphabet: int) -> Symbols:
    """Returns the symbols that `encode` was given [count]. Raises DamagedBytes for what it does not write.

    Args:
        data: What `encode` wrote.
        count: How many symbols there are, at least 0.
        alphabet: How many different symbols there may be, at least 1.
    """
    width = width_of(alphabet)
    if len(data) != -(-count * width // 8):
        raise DamagedBytes(f"{count} symbols of {width} bits are not {len(data)} bytes")
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    if bits[count * width :].any():
        raise DamagedBytes("bits are set behind the last symbol")
    symbols = np.zeros(count, np.int64)
    for bit in range(width):
        symbols = symbols << 1 | bits[bit : count * width : width]
    return symbols


def least_bytes(counts: Counts) -> float:
    """Returns how many bytes symbols that come so often take.

    Args:
        counts: How often each symbol comes [alphabet].
    """
    return float(-(-int(counts.sum()) * width_of(len(counts)) // 8))
