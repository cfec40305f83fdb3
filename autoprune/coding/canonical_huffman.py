"""Canonical Huffman codes (Huffman 1952), decoded many blocks at a time.

The table is the length of every symbol's code, 4 bits each; the codes themselves follow from the lengths, in order of
(length, symbol), as in DEFLATE (RFC 1951). Symbols are coded in blocks, and the table is followed by how many bits each
block takes, so that all blocks are decoded side by side.
"""

import heapq

import numpy as np
from numpy.typing import NDArray

from autoprune.coding.byte_reader import ByteReader, DamagedBytes, several
from autoprune.coding.symbols import Counts, Symbols

name = "huffman"
LONGEST = 15  # bits of a code
BLOCK = 4096  # symbols


def encode(symbols: Symbols, alphabet: int) -> bytes:
    """Returns the table, the bits that each block takes, and the codes.

    Args:
        symbols: [count] in [0, alphabet), of at most 2^15 kinds.
        alphabet: How many symbols there are, at least 1.
    """
    lengths = code_lengths(np.bincount(symbols, minlength=alphabet))
    codes = _codes(lengths)
    own, value = lengths[symbols], codes[symbols]
    ends = np.cumsum(own)
    bits = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    for index in range(int(lengths.max(initial=0))):  # bit `index` of every code so long, the highest first
        long = own > index
        bits[ends[long] - own[long] + index] = value[long] >> (own[long] - 1 - index) & 1
    sizes = np.add.reduceat(own, np.arange(0, len(own), BLOCK)) if len(own) else own
    nibbles = np.append(lengths, 0)[: len(lengths) + len(lengths) % 2].reshape(-1, 2)
    table = (nibbles[:, 0] << 4 | nibbles[:, 1]).astype(np.uint8)
    return b"".join([table.tobytes(), several(sizes.tolist()), np.packbits(bits).tobytes()])


def decode(data: bytes, count: int, alphabet: int) -> Symbols:
    """Returns the symbols that `encode` was given [count]. Raises DamagedBytes for what it does not write.

    Args:
        data: What `encode` wrote.
        count: How many symbols there are, at least 0.
        alphabet: How many different symbols there may be, at least 1.
    """
    reader = ByteReader(data)
    nibbles = np.frombuffer(reader.take(-(-alphabet // 2)), np.uint8)
    lengths = np.stack([nibbles >> 4, nibbles & 15], axis=1).reshape(-1).astype(np.int64)
    if lengths[alphabet:].any():
        raise DamagedBytes("the table goes on behind the last symbol")
    lengths = lengths[:alphabet]
    blocks = -(-count // BLOCK)
    if blocks > reader.left:
        raise DamagedBytes(f"{count} symbols are {blocks} blocks, and {reader.left} bytes are left")
    sizes = np.array([reader.varint(BLOCK * LONGEST) for _ in range(blocks)], np.int64)
    coded = reader.take(reader.left)
    if len(coded) != -(-int(sizes.sum()) // 8):
        raise DamagedBytes(f"blocks of {sizes.sum()} bits are not {len(coded)} bytes")
    if not count:
        if lengths.any():
            raise DamagedBytes("a table of codes for no symbols")
        return np.zeros(0, np.int64)
    return _decode_blocks(coded, sizes, count, *_lookup(lengths))


def least_bytes(counts: Counts) -> float:
    """Returns how many bytes the table and the codes take: all but how long each block is.

    Args:
        counts: How often each symbol comes [alphabet].
    """
    return len(counts) / 2 + float(counts @ code_lengths(counts)) / 8


def code_lengths(counts: Counts) -> NDArray[np.int64]:
    """Returns the bits of each symbol's code, at most 15 and as few in all as can be; 0 where it never comes.

    Where the optimal code is longer, counts are halved until it fits.

    Args:
        counts: How often each symbol comes [alphabet].
    """
    used = np.flatnonzero(counts)
    lengths = np.zeros(len(counts), np.int64)
    if len(used) > 2**LONGEST:
        raise ValueError(f"codes of {LONGEST} bits are for {2**LONGEST} symbols, got {len(used)}")
    weights = counts[used].astype(np.int64)
    while len(used):
        depth = _depths(weights)
        if depth.max() <= LONGEST:
            lengths[used] = np.maximum(depth, 1)
            break
        weights = (weights + 1) // 2
    return lengths


def _depths(weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """How deep each leaf is in Huffman's tree."""
    heap = [(int(weight), index) for index, weight in enumerate(weights)]
    heapq.heapify(heap)
    parents = [0] * max(2 * len(weights) - 1, 1)
    for node in range(len(weights), len(parents)):
        (first, left), (second, right) = heapq.heappop(heap), heapq.heappop(heap)
        parents[left] = parents[right] = node
        heapq.heappush(heap, (first + second, node))
    depth = [0] * len(parents)
    for node in range(len(parents) - 2, -1, -1):
        depth[node] = depth[parents[node]] + 1
    return np.array(depth[: len(weights)], np.int64)


def _codes(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Canonical codes: consecutive numbers in order of (length, symbol)."""
    codes = np.zeros(len(lengths), np.int64)
    order = np.lexsort((np.arange(len(lengths)), lengths))
    order = order[lengths[order] > 0]
    size = np.left_shift(1, LONGEST - lengths[order])
    codes[order] = (np.cumsum(size) - size) >> (LONGEST - lengths[order])
    return codes


def _lookup(lengths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The next 15 bits → (symbol, bits of its code; 0 where no code begins so)."""
    order = np.lexsort((np.arange(len(lengths)), lengths))
    order = order[lengths[order] > 0]
    size = np.left_shift(1, LONGEST - lengths[order])
    whole = size.sum() == 2**LONGEST
    if not whole and not (len(order) == 1 and lengths[order[0]] == 1):
        raise DamagedBytes("the lengths of its codes are of no Huffman code")
    symbols, bits = np.zeros(2**LONGEST, np.int64), np.zeros(2**LONGEST, np.int64)
    symbols[: size.sum()], bits[: size.sum()] = np.repeat(order, size), np.repeat(lengths[order], size)
    return symbols, bits


def _decode_blocks(
    coded: bytes, sizes: NDArray[np.int64], count: int, symbol_of: NDArray[np.int64], bits_of: NDArray[np.int64]
) -> Symbols:
    """All blocks side by side, a symbol of each at a time."""
    padded = np.frombuffer(coded + bytes(4), np.uint8).astype(np.int64)
    windows = padded[:-3] << 16 | padded[1:-2] << 8 | padded[2:-1]  # the 24 bits from each byte on
    ends = np.cumsum(sizes)
    at = ends - sizes
    last = count - (len(sizes) - 1) * BLOCK  # symbols of the last block
    decoded = np.empty((min(BLOCK, count), len(sizes)), np.int64)
    for step in range(len(decoded)):
        open_ = slice(None) if step < last else slice(-1)
        now = at[open_]
        # A damaged block can run past the end of the bytes: it is stopped there and refused below.
        window = windows[np.minimum(now >> 3, len(windows) - 1)] >> (9 - (now & 7)) & 2**LONGEST - 1
        decoded[step, open_] = symbol_of[window]
        bits = bits_of[window]
        if not bits.all():
            raise DamagedBytes("bits that begin no code")
        at[open_] = now + bits
    if not np.array_equal(at, ends):
        raise DamagedBytes("a block of codes does not end where it should")
    return decoded.T.reshape(-1)[:count]
