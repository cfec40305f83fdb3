"""Tensors in a temporary file: what is large and read a part at a time needs no memory of its own."""

import tempfile
import threading
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LARGE_BYTES = 64 * 2**20  # from which on something is kept in a file


class TensorFile:
    """A temporary file that tensors are written into; it goes with the last one who holds it or one of them.

    >>> TensorFile().write(torch.arange(6).view(3, 2)).read(1, 3).tolist()
    [[2, 3], [4, 5]]
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  it lives as long as this object
        self._end, self._turn = 0, threading.Lock()
        weakref.finalize(self, self._file.close)

    def write(self, tensor: Tensor) -> "StoredTensor":
        """The tensor [N, ...] behind all that was written before; what is returned reads it.

        Raises:
            OSError: The disk is full.
        """
        values = _bytes(tensor.detach().cpu().contiguous())
        with self._turn:
            start, left = self._end, memoryview(values)  # type: ignore[arg-type]
            self._file.seek(start)
            try:
                while left:  # a call may write a part
                    left = left[self._file.write(left) :]
            except OSError as error:
                raise OSError(
                    f"there is no room for {values.nbytes / 2**20:.0f} MiB in {tempfile.gettempdir()} ({error}); set "
                    "TMPDIR to a folder on a larger disk"
                ) from error
            self._end += values.nbytes
        return StoredTensor(self, start, tensor.shape, tensor.dtype)

    def read_into(self, values: NDArray[np.uint8], start: int) -> None:
        """The bytes hold what stands in the file from `start` on.

        Args:
            values: Bytes to be filled.
            start: Where the first one stands.
        """
        left = memoryview(values)  # type: ignore[arg-type]
        with self._turn:
            self._file.seek(start)
            while left:
                read = self._file.readinto(left)
                if not read:
                    raise OSError("a temporary file of tensors ends before they do; something has shortened it")
                left = left[read:]


class StoredTensor:
    """A tensor [N, ...] in a file, read anew each time. Where it is pickled, what it holds goes along."""

    def __init__(self, file: TensorFile, start: int, shape: Iterable[int], dtype: torch.dtype) -> None:
        """Nothing is read.

        Args:
            file: That it stands in.
            start: The place of its first byte.
            shape: Its shape [N, ...].
            dtype: Its type.
        """
        self._file, self._start, self.shape, self.dtype = file, start, torch.Size(shape), dtype

    def read(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Rows start … stop - 1 of the first axis, in new memory; all without any.

        Args:
            start: The first row.
            stop: The row behind the last one; None for N.
        """
        start, stop, _ = slice(start, stop).indices(self.shape[0])
        rows = torch.empty((max(0, stop - start), *self.shape[1:]), dtype=self.dtype)
        if rows.numel():
            self._file.read_into(_bytes(rows), self._start + start * rows[0].nbytes)
        return rows

    def take(self, which: NDArray[np.int64]) -> Tensor:
        """The rows of these numbers, in their order.

        Args:
            which: Rows, each from 0 to N - 1.
        """
        rows = torch.empty((len(which), *self.shape[1:]), dtype=self.dtype)
        if rows.numel():
            ends = np.flatnonzero(np.diff(which) != 1) + 1  # of runs of neighbours, each of which is read at once
            for run in np.split(np.arange(len(which)), ends):
                own = rows[run[0] : run[-1] + 1]
                self._file.read_into(_bytes(own), self._start + int(which[run[0]]) * rows[0].nbytes)
        return rows

    def __reduce__(self) -> tuple[Any, ...]:
        return _stored_again, (self.read(),)


def _stored_again(tensor: Tensor) -> "StoredTensor":
    return TensorFile().write(tensor)


def _bytes(tensor: Tensor) -> NDArray[np.uint8]:
    """The memory of a tensor without gaps; NumPy lacks some of PyTorch's types, such as bfloat16."""
    return tensor.view(-1).view(torch.uint8).numpy()
