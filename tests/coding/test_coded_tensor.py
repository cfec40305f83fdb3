"""A tensor comes back bit for bit, and takes about as many bytes as its entropy says."""

import lzma
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.coding.byte_reader import DamagedBytes
from autoprune.coding.coded_tensor import TensorBits, TensorHead, parts_of, read_body, write_body
from autoprune.coding.relative_positions import positions_of, relative_indices
from autoprune.coding.symbols import entropy_bits
from tests.coding.tensors_to_code import pruned_and_shared, random_tensor


def returned(tensor: TensorBits) -> TensorBits:
    return read_body(write_body(tensor), TensorHead(tensor.dtype, tuple(tensor.bits.shape)))


def check(seed: int) -> None:
    tensor = random_tensor(np.random.default_rng(seed))
    decoded = returned(tensor)
    assert decoded.dtype == tensor.dtype
    assert decoded.bits.dtype == tensor.bits.dtype
    assert decoded.bits.shape == tensor.bits.shape
    assert np.array_equal(decoded.bits, tensor.bits)


@given(st.integers(0, 2**32 - 1))
def test_decoding_is_the_inverse_of_encoding(seed: int) -> None:
    check(seed)


@pytest.mark.slow
def test_ten_thousand_tensors_come_back() -> None:
    for seed in range(10_000):
        check(seed)


@pytest.mark.parametrize("values", [[-0.0, 0.0, 1.0], [math.nan, math.inf, -math.inf, 0.0], [1e-45, -1e-45, 3e38]])
def test_unusual_floats_keep_their_bits(values: list[float]) -> None:
    array = np.tile(np.array(values, np.float32), (3, 50))
    assert np.array_equal(returned(TensorBits("float32", array.view("<u4"))).bits, array.view("<u4"))


@given(st.lists(st.integers(0, 5000), unique=True), st.integers(1, 15))
def test_relative_indices_lead_back_to_the_positions(places: list[int], width: int) -> None:
    positions = np.array(sorted(places), np.int64)
    symbols = relative_indices(positions, width)
    assert positions_of(symbols, width).tolist() == positions.tolist()
    assert len(symbols) == 0 or symbols.max() < 2**width


def test_the_forms_are_taken_for_what_they_are() -> None:
    rng = np.random.default_rng(0)
    shared = pruned_and_shared((200, 300), density=0.08, values=32, seed=0)
    parts = parts_of(TensorBits("float32", shared.view("<u4")))
    assert parts.kept == np.count_nonzero(shared)
    assert parts.value_bits == 5
    assert parts.index_bits > 0
    scales = rng.random(50).astype(np.float16).astype(np.float32)[:, None]
    codes = rng.integers(-126, 127, (50, 400)).astype(np.float32)
    codes[:, 3] = 127
    parts = parts_of(TensorBits("float32", (codes * scales + 0.0).view("<u4")))
    assert (parts.value_bits, parts.table) == (8, 4 * 50)
    dense = rng.standard_normal((50, 60)).astype(np.float32)
    assert len(write_body(TensorBits("float32", dense.view("<u4")))) == dense.nbytes + 3
    half = dense.astype(np.float16).astype(np.float32)
    assert len(write_body(TensorBits("float32", half.view("<u4")))) == dense.nbytes // 2 + 3


@pytest.mark.parametrize("density", [0.02, 0.08, 0.3])
def test_files_are_near_the_entropy_and_below_general_compressors(density: float) -> None:
    """The bound: which weights are kept, and which value each has, both at the entropy of their frequencies."""
    weights = pruned_and_shared((300, 784), density=density, values=32, seed=3)
    kept = weights[weights != 0]
    counts = np.unique(kept, return_counts=True)[1]
    bound = (entropy_bits(np.array([len(kept), weights.size - len(kept)])) + entropy_bits(counts)) / 8
    size = len(write_body(TensorBits("float32", weights.view("<u4"))))
    assert bound < size <= 1.03 * bound
    assert size <= 0.9 * len(lzma.compress(weights.tobytes(), preset=9))


def test_columns_are_written_where_whole_inputs_are_gone() -> None:
    weights = pruned_and_shared((400, 100), density=0.6, values=4, seed=1)
    weights[:, np.random.default_rng(0).random(100) < 0.7] = 0
    by_columns = len(write_body(TensorBits("float32", weights.view("<u4"))))
    shuffled = np.random.default_rng(0).permuted(weights.reshape(-1)).reshape(weights.shape)
    assert by_columns < 0.7 * len(write_body(TensorBits("float32", shuffled.view("<u4"))))
    assert np.array_equal(returned(TensorBits("float32", weights.view("<u4"))).bits, weights.view("<u4"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\x02\x00", "layout 2"),
        (b"\x00\x07", "kind 7"),
        (b"\x01\x00\x05", "at most 4 here"),
        (b"\x01\x00\x02\x11", "of 17 bits"),
        (b"\x00\x00\x00" + bytes(15), "16 bytes are needed"),
        (b"\x00\x00\x00" + bytes(17), "1 bytes follow"),
        (b"\x00\x00\x03" + bytes(16), "precision 3"),
        (b"\x00\x01\x00\x00", "without values"),
    ],
)
def test_wrong_bodies_say_what_is_wrong(body: bytes, message: str) -> None:
    with pytest.raises(DamagedBytes, match=message):
        read_body(body, TensorHead("float32", (4,)))
