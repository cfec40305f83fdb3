"""What is predicted from entropies is about what files have."""

import numpy as np
import pytest

from autoprune.coding.apz_file import apz_bytes
from autoprune.coding.coded_tensor import TensorBits
from autoprune.coding.predicted_size import index_bits, predicted_bytes
from tests.coding.tensors_to_code import pruned_and_shared


@pytest.mark.parametrize("density", [0.02, 0.1, 0.4, 1.0])
@pytest.mark.parametrize("values", [16, 64])
def test_a_file_is_within_two_percent_of_its_prediction(density: float, values: int) -> None:
    matrix = pruned_and_shared((300, 400), density=density, values=values, seed=0)
    tensors = {"fc.weight": TensorBits("float32", matrix.view("<u4"))}
    assert len(apz_bytes(b"{}", tensors)) == pytest.approx(predicted_bytes(tensors), rel=0.02)


def test_a_sparse_matrix_of_distinct_values_is_predicted_too() -> None:
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float16):
        matrix = np.where(rng.random((200, 300)) < 0.3, rng.normal(size=(200, 300)), 0).astype(dtype).astype(np.float32)
        tensors = {"fc.weight": TensorBits("float32", matrix.view("<u4"))}
        assert len(apz_bytes(b"{}", tensors)) == pytest.approx(predicted_bytes(tensors), rel=0.02)


def test_the_index_takes_most_at_a_half() -> None:
    bits = index_bits(np.arange(101), 100)
    assert bits[0] == bits[100] == 0
    assert bits.argmax() == 50
    assert bits[50] == pytest.approx(100)
