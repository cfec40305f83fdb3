"""Samples that are read when they are used: a batch at a time is in memory, and the whole never."""

import contextlib
import mmap
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LOADED_BYTES = 2**24  # of samples that are chosen, up to which they are read at once
IN_PLACE = re.compile(r"\w*[^_]_|__setitem__")


class Source(Protocol):
    """Where samples lie."""

    shape: torch.Size
    dtype: torch.dtype

    def take(self, which: NDArray[np.int64]) -> Tensor: ...


class LazyTensor(Tensor):
    """A tensor [N, ...] on the CPU whose rows are read when they are used.

    To choose rows makes another one, or a plain tensor where they are few; whatever else is done with it, is done with
    all that it holds, read for the purpose. Nothing can be written into it.

    >>> lazy = LazyTensor.of(torch.arange(12.0).view(4, 3))
    >>> lazy.shape, lazy[1:3].sum().item()
    (torch.Size([4, 3]), 25.0)
    """

    _source: Source
    _which: NDArray[np.int64]

    @staticmethod
    def of(source: "Source | Tensor | np.memmap[Any, Any]") -> "LazyTensor":
        """All rows of what lies elsewhere.

        Args:
            source: A tensor, an array that is mapped from a file, or something with a shape, a dtype and `take`.
        """
        if isinstance(source, np.memmap):
            source = _MappedArray(source)
        elif isinstance(source, Tensor):
            source = _InMemory(source)
        return _lazy(source, np.arange(source.shape[0]), source.dtype)

    def load(self) -> Tensor:
        """A plain tensor of all rows."""
        return self._source.take(self._which).to(self.dtype)

    def converted(self, dtype: torch.dtype) -> "LazyTensor":
        """The same rows, in another type once they are read.

        Args:
            dtype: Theirs from here on.
        """
        return _lazy(self._source, self._which, dtype)

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if function in _DESCRIBING:
            with torch._C.DisableTorchFunctionSubclass():
                return function(*args, **kwargs)
        if function is Tensor.detach or (function is Tensor.to and args[1:] == (args[0].device,) and not kwargs):
            return args[0]
        if function is Tensor.__getitem__ and isinstance(args[0], LazyTensor):
            return _chosen(args[0], args[1])
        if args and isinstance(args[0], LazyTensor) and IN_PLACE.fullmatch(getattr(function, "__name__", "")):
            raise TypeError(
                "samples that are read when they are used cannot be written into; write into a copy, tensor.clone()"
            )
        return function(*_loaded(args), **_loaded(kwargs))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's own is a static stub
        cls, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return function(*_loaded(args), **_loaded(kwargs or {}))

    def __deepcopy__(self, memo: Any) -> "LazyTensor":
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.load().__reduce_ex__(protocol)


_DESCRIBING = {  # what is asked of a tensor without its values
    *(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "layout", "requires_grad")),
    *(getattr(Tensor, name).__get__ for name in ("nbytes", "itemsize", "is_cuda", "is_sparse", "is_quantized")),
    *(Tensor.size, Tensor.dim, Tensor.__len__, Tensor.numel, Tensor.nelement, Tensor.element_size),
    *(Tensor.is_floating_point, Tensor.is_complex, torch.is_floating_point, torch.is_complex),
}


def _lazy(source: Source, which: NDArray[np.int64], dtype: torch.dtype) -> LazyTensor:
    lazy: LazyTensor = Tensor._make_wrapper_subclass(LazyTensor, (len(which), *source.shape[1:]), dtype=dtype)
    lazy._source, lazy._which = source, which
    return lazy


def _chosen(lazy: LazyTensor, index: Any) -> Tensor:
    """Rows by a slice, a number or a tensor of numbers; of a tuple, its first part chooses rows."""
    if isinstance(index, tuple) and index and isinstance(index[0], int | slice):
        first, *others = index
        rows: Tensor = _loaded(_chosen(lazy, slice(first, first + 1 or None) if isinstance(first, int) else first))
        return rows[0 if isinstance(first, int) else slice(None), *others]
    if isinstance(index, int):
        return _chosen(lazy, (index,))
    if isinstance(index, Tensor) and index.ndim == 1 and not index.is_floating_point():
        index = index.cpu().numpy()
    elif not isinstance(index, slice | list):
        return lazy.load()[index]
    rows = _lazy(lazy._source, lazy._which[index], lazy.dtype)
    return rows.load() if rows.nbytes <= LOADED_BYTES else rows


def _loaded(value: Any) -> Any:
    match value:
        case LazyTensor():
            return value.load()
        case dict():
            return {key: _loaded(each) for key, each in value.items()}
        case tuple() | list():
            return type(value)(map(_loaded, value)) if type(value) in (tuple, list) else value
    return value


class _InMemory:
    """Rows of a tensor, of which no second one is made; it may be mapped from a file."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor, self.shape, self.dtype = tensor, tensor.shape, tensor.dtype

    def take(self, which: NDArray[np.int64]) -> Tensor:
        if len(which) and (np.diff(which) == 1).all():
            return self._tensor[int(which[0]) : int(which[-1]) + 1]
        return self._tensor[torch.from_numpy(which)]


class _MappedArray:
    """Rows of an array that is mapped from a file; what has been read of it is let go of again."""

    def __init__(self, array: "np.memmap[Any, Any]") -> None:
        self._array, self.shape = array, torch.Size(array.shape)
        self.dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype

    def take(self, which: NDArray[np.int64]) -> Tensor:
        rows = torch.from_numpy(np.array(self._array[which], order="C"))
        mapping = getattr(self._array, "_mmap", None)
        if isinstance(mapping, mmap.mmap) and self._array.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
            with contextlib.suppress(OSError, ValueError):  # the pages stay, where they cannot be let go of
                mapping.madvise(mmap.MADV_DONTNEED)
        return rows
