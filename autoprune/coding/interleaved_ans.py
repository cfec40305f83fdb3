"""Asymmetric numeral systems (rANS; Duda, arXiv 1311.2540), interleaved so that NumPy codes many symbols at a time.

Symbol i belongs to lane i mod lanes. All lanes take a step together; those whose state has become too small read one
16-bit word each from the one stream, in the order of the lanes (Giesen, arXiv 1402.3392). Frequencies are whole numbers
of a power of two, and all arithmetic is whole, so that every machine decodes the same.
"""

import numpy as np
from numpy.typing import NDArray

from autoprune.coding.byte_reader import ByteReader, DamagedBytes, several, varint
from autoprune.coding.symbols import Counts, Symbols, entropy_bits

name = "ans"
LEAST = 2**16  # of a state; it is below 2^32
FINEST = 15  # bits of a frequency
BYTES_PER_LANE = 400  # coded; a lane costs four more, and as many lanes as there are take a step at once
MOST_STEPS = 2**15  # that lanes take, whatever they cost
PRECISIONS = (8, 10, 12, 14, 15)  # bits of frequencies that are tried
FEW_LANES = 16  # up to which Python's numbers are faster than NumPy's arrays of so few

Frequencies = NDArray[np.int64]


def encode(symbols: Symbols, alphabet: int) -> bytes:
    """Returns the frequencies, the lanes' states and the words.

    Args:
        symbols: [count] in [0, alphabet), of at most 2^15 kinds.
        alphabet: How many symbols there are, at least 1.
    """
    counts = np.bincount(symbols, minlength=alphabet)
    if not len(symbols):
        return b""
    kinds = int((counts > 0).sum())
    if kinds > 2**FINEST:
        raise ValueError(f"frequencies of {FINEST} bits are for {2**FINEST} symbols, got {kinds}")
    bits, frequencies = min(
        ((bits, frequencies_of(counts, bits)) for bits in PRECISIONS if kinds <= 2**bits),
        key=lambda pair: _cost(counts, *pair),
    )
    coded = int(_cost(counts, bits, frequencies)) // 8
    lanes = max(1, min(coded // BYTES_PER_LANE, len(symbols) // 8192), len(symbols) // MOST_STEPS)
    states, words = (_encode_one_by_one if lanes <= FEW_LANES else _encode_lanes)(symbols, frequencies, bits, lanes)
    head = bytes([bits]) + varint(lanes) + _table(frequencies)
    return b"".join([head, states.astype("<u4").tobytes(), words.astype("<u2").tobytes()])


def decode(data: bytes, count: int, alphabet: int) -> Symbols:
    """Returns the symbols that `encode` was given [count]. Raises DamagedBytes for what it does not write.

    Args:
        data: What `encode` wrote.
        count: How many symbols there are, at least 0.
        alphabet: How many different symbols there may be, at least 1.
    """
    reader = ByteReader(data)
    if not count:
        reader.end()
        return np.zeros(0, np.int64)
    bits, lanes = reader.byte(), reader.varint(count)
    if not 1 <= bits <= FINEST or not lanes:
        raise DamagedBytes(f"frequencies of {bits} bits in {lanes} lanes for {count} symbols")
    frequencies = _read_table(reader, alphabet)
    if frequencies.sum() != 2**bits:
        raise DamagedBytes(f"frequencies add up to {frequencies.sum()}, not to {2**bits}")
    states = np.frombuffer(reader.take(4 * lanes), "<u4").astype(np.int64)
    rest = reader.take(reader.left)
    if len(rest) % 2:
        raise DamagedBytes("half a word is left")
    if not ((states >= LEAST) & (states < LEAST << 16)).all():
        raise DamagedBytes("a lane begins in a state that none ends in")
    step = _decode_one_by_one if lanes <= FEW_LANES else _decode_lanes
    return step(states, np.frombuffer(rest, "<u2").astype(np.int64), frequencies, bits, count)


def least_bytes(counts: Counts) -> float:
    """Returns the entropy of symbols that come so often, below which no code of single symbols gets.

    Args:
        counts: How often each symbol comes [alphabet].
    """
    return entropy_bits(counts) / 8


def frequencies_of(counts: Counts, bits: int) -> Frequencies:
    """Returns whole shares of 2^bits that are nearest to the counts', at least 1 where a symbol comes at all.

    Args:
        counts: How often each symbol comes [alphabet]; not all are 0.
        bits: Enough for every kind of symbol that comes.
    """
    whole = 2**bits
    exact = counts * (whole / counts.sum())
    shares = np.where(counts > 0, np.maximum(np.floor(exact), 1), 0).astype(np.int64)
    while (missing := whole - int(shares.sum())) != 0:
        if missing > 0:  # to those that lost most by rounding down
            order = np.argsort(np.where(counts > 0, shares / np.maximum(exact, 1e-300), np.inf), kind="stable")
            shares[order[: min(missing, int((counts > 0).sum()))]] += 1
        else:  # from those that can spare it
            order = np.argsort(np.where(shares > 1, -shares / np.maximum(exact, 1e-300), np.inf), kind="stable")
            shares[order[: min(-missing, int((shares > 1).sum()))]] -= 1
    return shares


def _cost(counts: Counts, bits: int, frequencies: Frequencies) -> float:
    """Bits of the coded symbols and the table."""
    used = counts > 0
    parameter = _rice_parameter(frequencies)
    table = int((frequencies >> parameter).sum()) + len(frequencies) * (1 + parameter)
    return float((counts[used] * (bits - np.log2(frequencies[used]))).sum()) + 8 * (3 + -(-table // 8))


def _rice_parameter(frequencies: Frequencies) -> int:
    return min(int(max(frequencies.mean() * 0.7, 1)).bit_length() - 1, FINEST)


def _table(frequencies: Frequencies) -> bytes:
    """Rice codes of the frequencies, whose parameter stands in front: 2^parameter is about their mean."""
    parameter = _rice_parameter(frequencies)
    high = frequencies >> parameter
    ends = np.cumsum(high + 1 + parameter)
    starts = ends - (high + 1 + parameter)
    edges = np.zeros(int(ends[-1]) + 1, np.int64)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + high, -1)
    bits = np.cumsum(edges[:-1])  # ones, as many as the high part says, and a zero
    for index in range(parameter):
        bits[starts + high + 1 + index] = frequencies >> (parameter - 1 - index) & 1
    packed = np.packbits(bits.astype(np.uint8)).tobytes()
    return bytes([parameter]) + several([len(packed)]) + packed


def _read_table(reader: ByteReader, alphabet: int) -> Frequencies:
    parameter = reader.byte()
    if parameter > FINEST:
        raise DamagedBytes(f"a table of frequencies with the parameter {parameter}")
    packed = reader.take(reader.varint(((2**FINEST >> parameter) + alphabet * (1 + parameter)) // 8 + 1))
    bits = np.unpackbits(np.frombuffer(packed, np.uint8))
    zeros = np.append(np.flatnonzero(bits == 0), len(bits)).tolist()
    frequencies, at, index = np.zeros(alphabet, np.int64), 0, 0
    weights = 1 << np.arange(parameter - 1, -1, -1)
    for symbol in range(alphabet):
        while zeros[index] < at and index < len(zeros) - 1:
            index += 1
        low = zeros[index] + 1
        if low + parameter > len(bits):
            raise DamagedBytes("the table of frequencies ends too early")
        frequencies[symbol] = (low - 1 - at << parameter) + int(bits[low : low + parameter] @ weights)
        at = low + parameter
    if len(bits) - at >= 8 or bits[at:].any():
        raise DamagedBytes("bits follow the table of frequencies")
    return frequencies


def _encode_one_by_one(
    symbols: Symbols, frequencies: Frequencies, bits: int, lanes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What `_encode_lanes` returns."""
    each, starts = frequencies.tolist(), (np.cumsum(frequencies) - frequencies).tolist()
    states, words = [LEAST] * lanes, []
    for index, symbol in zip(range(len(symbols) - 1, -1, -1), symbols[::-1].tolist(), strict=True):
        state, frequency = states[index % lanes], each[symbol]
        if state >= frequency << 32 - bits:
            words.append(state & 0xFFFF)
            state >>= 16
        states[index % lanes] = (state // frequency << bits) + state % frequency + starts[symbol]
    return np.array(states, np.int64), np.array(words[::-1], np.int64)


def _decode_one_by_one(
    states: NDArray[np.int64], words: NDArray[np.int64], frequencies: Frequencies, bits: int, count: int
) -> Symbols:
    """What `_decode_lanes` returns."""
    symbol_of = np.repeat(np.arange(len(frequencies)), frequencies).tolist()
    each, starts = frequencies.tolist(), (np.cumsum(frequencies) - frequencies).tolist()
    lanes, mask, rest = states.tolist(), 2**bits - 1, iter(words.tolist())
    decoded, number = [0] * count, len(lanes)
    for index in range(count):
        state = lanes[index % number]
        slot = state & mask
        decoded[index] = symbol = symbol_of[slot]
        state = each[symbol] * (state >> bits) + slot - starts[symbol]
        if state < LEAST:
            word = next(rest, None)
            if word is None:
                raise DamagedBytes("the words end before the symbols")
            state = state << 16 | word
        lanes[index % number] = state
    if next(rest, None) is not None or any(state != LEAST for state in lanes):
        raise DamagedBytes("the lanes do not end where they began")
    return np.array(decoded, np.int64)


def _encode_lanes(
    symbols: Symbols, frequencies: Frequencies, bits: int, lanes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The states in which decoding begins [lanes], and the words in the order in which it reads them."""
    each, starts = frequencies[symbols], (np.cumsum(frequencies) - frequencies)[symbols]
    fullest = each << 32 - bits
    states, words = np.full(lanes, LEAST, np.int64), []
    for at in range((len(symbols) - 1) // lanes * lanes, -1, -lanes):
        own = slice(at, at + lanes)
        state = states[: len(symbols) - at]  # a view: the last step may be of fewer lanes
        full = np.flatnonzero(state >= fullest[own])
        words.append(state[full] & 0xFFFF)
        state[full] >>= 16
        quotient, rest = np.divmod(state, each[own])
        state[:] = (quotient << bits) + rest + starts[own]
    return states, np.concatenate(words[::-1])


def _decode_lanes(
    states: NDArray[np.int64], words: NDArray[np.int64], frequencies: Frequencies, bits: int, count: int
) -> Symbols:
    symbol_of = np.repeat(np.arange(len(frequencies)), frequencies)
    offset = np.arange(2**bits) - (np.cumsum(frequencies) - frequencies)[symbol_of]
    frequency_of = frequencies[symbol_of]
    lanes, mask, at = len(states), 2**bits - 1, 0
    decoded = np.empty(count, np.int64)
    for begin in range(0, count, lanes):
        state = states[: min(lanes, count - begin)]  # a view: the last step may be of fewer lanes
        slot = state & mask
        decoded[begin : begin + len(state)] = symbol_of[slot]
        state[:] = frequency_of[slot] * (state >> bits) + offset[slot]
        low = np.flatnonzero(state < LEAST)
        if len(low):
            if at + len(low) > len(words):
                raise DamagedBytes("the words end before the symbols")
            state[low] = state[low] << 16 | words[at : at + len(low)]
            at += len(low)
    if at != len(words) or (states != LEAST).any():
        raise DamagedBytes("the lanes do not end where they began")
    return decoded
