"""Tensors in temporary files are the tensors that were written, whole, in rows and in other processes."""

import copy
import gc
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from autoprune.stored_tensor import TensorFile

TYPES = [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]


def some(dtype: torch.dtype, *shape: int) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3).to(dtype)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_what_is_read_is_what_was_written(dtype: torch.dtype) -> None:
    file = TensorFile()
    tensors = [some(dtype, 5, 3), some(dtype, 2, 4, 4).transpose(1, 2), some(dtype, 7), some(dtype, 0, 3)]
    stored = [file.write(tensor) for tensor in tensors]
    for tensor, own in zip(tensors, stored, strict=True):
        assert own.dtype == tensor.dtype
        assert torch.equal(own.read(), tensor)
        assert torch.equal(own.read(1, 2), tensor[1:2])
        assert torch.equal(copy.deepcopy(own).read(), tensor)
        assert torch.equal(pickle.loads(pickle.dumps(own)).read(), tensor)


@given(which=st.lists(st.integers(0, 9), max_size=20))
def test_rows_come_in_the_order_in_which_they_are_asked_for(which: list[int]) -> None:
    tensor = some(torch.float32, 10, 2)
    assert torch.equal(TensorFile().write(tensor).take(np.array(which, np.int64)), tensor[which])


def test_reading_twice_gives_memory_of_ones_own() -> None:
    stored = TensorFile().write(torch.zeros(3))
    stored.read().fill_(1)
    assert torch.equal(stored.read(), torch.zeros(3))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are listed nowhere")
def test_the_file_goes_with_its_last_tensor() -> None:
    def files() -> int:
        gc.collect()
        opened = [each for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
        return sum("(deleted)" in str(each.readlink()) for each in opened)

    before = files()
    stored = TensorFile().write(torch.zeros(3))
    assert files() == before + 1
    del stored
    assert files() == before
