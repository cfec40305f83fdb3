"""A stream of batches as samples: in memory while they are few, in a temporary file from there on."""

from collections.abc import Iterable

import torch
from torch import Tensor

from autoprune.machine_cache import release_freed_memory
from autoprune.stored_tensor import StoredTensor, TensorFile
from autoprune.task import samples
from autoprune.task.lazy_tensor import LazyTensor
from autoprune.task.samples import Samples, joined_samples, leaves, mapped


def spooled(batches: Iterable[Samples]) -> Samples:
    """The batches one after the other; None without any. Tensors that are large are read when they are used.

    Args:
        batches: Samples of one structure, in any number.

    Raises:
        ValueError: Samples of two batches differ in shape.
    """
    held: list[Samples] = []
    columns: list[_Column] = []
    held_bytes = 0
    for batch in batches:
        if columns:
            _write(columns, batch)
            continue
        held.append(batch)
        held_bytes += sum(tensor.nbytes for tensor in leaves(batch))
        if held_bytes > samples.COPIED_BYTES:
            columns = [_Column(tensor) for tensor in leaves(batch)]
            for earlier in held:
                _write(columns, earlier)
            del held[1:]
    if not columns:
        return joined_samples(held) if held else None
    release_freed_memory()  # of what was held before
    whole = iter(columns)
    return mapped(held[0], lambda _: next(whole).tensor())


class _Column:
    """One tensor of each batch, written one after the other."""

    def __init__(self, first: Tensor) -> None:
        self.file, self.shape, self.dtype, self.number = TensorFile(), first.shape[1:], first.dtype, 0

    def write(self, tensor: Tensor) -> None:
        if tensor.shape[1:] != self.shape:
            raise ValueError(
                f"samples of one data set have the shapes {tuple(self.shape)} and {tuple(tensor.shape[1:])}; give a "
                "data set that brings them all to one shape"
            )
        self.file.write(tensor.to(self.dtype))
        self.number += len(tensor)

    def tensor(self) -> Tensor:
        stored = StoredTensor(self.file, 0, torch.Size((self.number, *self.shape)), self.dtype)
        lazy = LazyTensor.of(stored)
        return lazy if lazy.nbytes > samples.COPIED_BYTES else stored.read()


def _write(columns: list[_Column], batch: Samples) -> None:
    for column, tensor in zip(columns, leaves(batch), strict=True):
        column.write(tensor)
