"""Every code gives back what it was given, and is about as short as entropy allows."""

import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.coding import canonical_huffman, fixed_width, interleaved_ans
from autoprune.coding.byte_reader import ByteReader, DamagedBytes, varint
from autoprune.coding.codes import CODES, Code, read_symbols, write_symbols
from autoprune.coding.symbols import entropy_bits


@pytest.mark.parametrize("code", CODES.values(), ids=lambda code: code.name)
@given(st.integers(1, 300), st.integers(0, 600), st.floats(0.02, 5), st.integers(0, 2**32 - 1))
def test_decoding_gives_the_symbols_back(code: Code, alphabet: int, count: int, evenness: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    symbols = rng.choice(alphabet, count, p=rng.dirichlet(np.full(alphabet, evenness) + 1e-3))
    assert code.decode(code.encode(symbols, alphabet), count, alphabet).tolist() == symbols.tolist()


@pytest.mark.parametrize("code", CODES.values(), ids=lambda code: code.name)
@pytest.mark.parametrize("count", [4095, 4096, 4097, 8191, 8192, 16384, 40001])
def test_blocks_and_lanes_of_any_length_fit(code: Code, count: int) -> None:
    symbols = np.random.default_rng(count).geometric(0.2, count).clip(max=30)
    assert np.array_equal(code.decode(code.encode(symbols, 31), count, 31), symbols)


def test_a_very_rare_symbol_has_a_code_of_at_most_fifteen_bits() -> None:
    fibonacci = np.array([1, 1])
    while len(fibonacci) < 40:  # whose optimal code has 39 bits
        fibonacci = np.append(fibonacci, fibonacci[-2:].sum())
    lengths = canonical_huffman.code_lengths(fibonacci)
    assert lengths.max() == 15
    assert (2.0**-lengths).sum() == 1


def test_huffman_is_as_short_as_the_textbooks() -> None:
    counts = np.random.default_rng(1).integers(1, 1000, 50)
    heap = counts.tolist()
    heapq.heapify(heap)
    merged = 0
    while len(heap) > 1:  # the cost of the tree is the sum of its inner nodes
        merged += (both := heapq.heappop(heap) + heapq.heappop(heap))
        heapq.heappush(heap, both)
    assert int(canonical_huffman.code_lengths(counts) @ counts) == merged


def test_the_codes_are_those_of_deflates_example() -> None:
    """RFC 1951, 3.2.2: lengths 3, 3, 3, 3, 3, 2, 4, 4 give 010, 011, 100, 101, 110, 00, 1110, 1111."""
    codes = canonical_huffman._codes(np.array([3, 3, 3, 3, 3, 2, 4, 4]))
    assert codes.tolist() == [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111]


@pytest.mark.parametrize(("count", "most"), [(20_000, 1.02), (200_000, 1.01)])
def test_the_shortest_code_is_near_the_entropy(count: int, most: float) -> None:
    rng = np.random.default_rng(0)
    for alphabet in (2, 16, 64, 256):
        symbols = rng.choice(alphabet, count, p=rng.dirichlet(np.full(alphabet, 0.5)))
        bound = entropy_bits(np.bincount(symbols)) / 8
        tables = 2 * alphabet  # a table is at most about two bytes a symbol
        assert bound <= len(write_symbols(symbols, alphabet)) <= most * bound + tables + 40


def test_huffman_alone_would_waste_bits_on_two_symbols() -> None:
    """Why there is a second entropy code: no Huffman code takes less than a bit a symbol."""
    symbols = (np.random.default_rng(0).random(50_000) < 0.05).astype(np.int64)
    bound = entropy_bits(np.bincount(symbols)) / 8
    assert len(canonical_huffman.encode(symbols, 2)) > 3 * bound
    assert len(interleaved_ans.encode(symbols, 2)) < 1.03 * bound


@pytest.mark.parametrize("lanes", [1, 3, 16])
def test_lanes_one_by_one_and_side_by_side_write_and_read_the_same(lanes: int) -> None:
    symbols = np.random.default_rng(lanes).geometric(0.3, 700).clip(max=20)
    frequencies = interleaved_ans.frequencies_of(np.bincount(symbols), 12)
    states, words = interleaved_ans._encode_lanes(symbols, frequencies, 12, lanes)
    for own, other in zip(
        (states, words), interleaved_ans._encode_one_by_one(symbols, frequencies, 12, lanes), strict=True
    ):
        assert own.tolist() == other.tolist()
    for decode in (interleaved_ans._decode_lanes, interleaved_ans._decode_one_by_one):
        assert np.array_equal(decode(states.copy(), words, frequencies, 12, 700), symbols)
        for wrong in (words[:-1], np.append(words, 7)):
            with pytest.raises(DamagedBytes, match=r"words end|lanes do not end"):
                decode(states.copy(), wrong, frequencies, 12, 700)


def test_frequencies_add_up_and_leave_none_out() -> None:
    rng = np.random.default_rng(2)
    for bits in (8, 12, 15):
        counts = (rng.random(200) ** 30 * 1e6).astype(np.int64) * (rng.random(200) < 0.8)
        frequencies = interleaved_ans.frequencies_of(counts, bits)
        assert frequencies.sum() == 2**bits
        assert ((frequencies > 0) == (counts > 0)).all()


def test_a_number_is_written_in_one_way_only() -> None:
    for value in (0, 1, 127, 128, 16383, 16384, 2**63 - 1):
        assert ByteReader(varint(value)).varint() == value
    with pytest.raises(DamagedBytes, match="longer than it needs"):
        ByteReader(b"\x80\x00").varint()
    with pytest.raises(DamagedBytes, match="at most 9 here"):
        ByteReader(b"\x0a").varint(9)
    with pytest.raises(DamagedBytes, match="longer than 9 bytes"):
        ByteReader(b"\xff" * 10).varint()
    with pytest.raises(ValueError, match="0 to 2"):
        varint(-1)


@pytest.mark.parametrize("code", CODES.values(), ids=lambda code: code.name)
def test_bytes_that_no_encoder_writes_are_refused(code: Code) -> None:
    """Every truncation and every flipped bit is refused, or gives as many symbols of the alphabet."""
    symbols = np.random.default_rng(3).choice(9, 100, p=np.arange(9) / 36)
    data = code.encode(symbols, 9)
    for length in range(len(data)):
        with pytest.raises(DamagedBytes):
            code.decode(data[:length], len(symbols), 9)
    for place in range(8 * len(data)):
        altered = bytearray(data)
        altered[place // 8] ^= 1 << place % 8
        try:
            decoded = code.decode(bytes(altered), len(symbols), 9)
        except DamagedBytes:
            continue
        assert len(decoded) == len(symbols)
        assert (decoded >= 0).all()


def test_symbols_outside_the_alphabet_are_refused_in_both_directions() -> None:
    with pytest.raises(ValueError, match=r"symbols.*\[0, 3\), got 0 to 3"):
        write_symbols(np.array([0, 3]), 3)
    coded = bytes([0]) + varint(1) + fixed_width.encode(np.array([3, 0]), 4)
    with pytest.raises(DamagedBytes, match="symbol 3 in an alphabet of 3"):
        read_symbols(ByteReader(coded), 2, 3)
    with pytest.raises(DamagedBytes, match="code 77"):
        read_symbols(ByteReader(bytes([77, 0])), 0, 3)
