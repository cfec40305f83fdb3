"""A stand-in for an accelerator: tensors that say they lie on another device and hold their numbers on the processor.

Operators refuse to mix both kinds, as CUDA's do, so that what would fail there for want of a `.to(device)` fails here.
They say `meta`, the only other device that PyTorch has everywhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from autoprune.task.task import outputs_of

DEVICE = torch.device("meta")
MIXED = ("index", "index_put", "index_put_", "_index_put_impl_", "copy_", "_copy_from")  # whose operands may lie apart


class Elsewhere(Tensor):
    """A tensor on the simulated device. held: its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "Elsewhere":
        return torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=DEVICE, requires_grad=held.requires_grad,
        )  # fmt: skip

    def __init__(self, held: Tensor) -> None:
        self.held = held.detach()

    @property  # type: ignore[override]
    def data(self) -> "Elsewhere":
        return Elsewhere(self.held)

    @data.setter
    def data(self, values: "Elsewhere") -> None:
        self.held = values.held

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def tolist(self) -> Any:
        return self.held.tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            copied = Elsewhere(self.held.clone()).requires_grad_(self.requires_grad)
            if getattr(self, "_is_param", False):
                copied._is_param = True
            memo[id(self)] = copied
        return memo[id(self)]

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Elsewhere({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _called(function, args, kwargs or {})


class _Everywhere(TorchDispatchMode):
    """Sees what makes tensors on the device of none that lie there."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(function, args, kwargs or {})


def _called(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = function.overloadpacket.__name__
    if name == "_fused_sdp_choice":
        return 0  # the plain one: fused ones are compiled for a device
    tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
    there = [isinstance(tensor, Elsewhere) for tensor in tensors]
    target = kwargs.get("device")
    if target is not None and torch.device(target).type == DEVICE.type:
        kwargs, wraps = {**kwargs, "device": torch.device("cpu")}, True
    elif target is not None:
        wraps = False
    else:
        wraps = there[0] if name in MIXED and there else any(there)
        apart = [t for t, is_there in zip(tensors, there, strict=True) if not is_there and t.ndim]
        if any(there) and apart and name not in MIXED:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, found another one and cpu")
        if name in ("index", "_index_put_impl_", "index_put_") and not there[0] and any(there):
            raise RuntimeError(f"{name}: indices should be on the same device as the indexed tensor (cpu)")
    plain_args, plain_kwargs = tree_map_only(Elsewhere, lambda x: x.held, (args, kwargs))
    result = function(*plain_args, **plain_kwargs)
    if function._schema.is_mutable and tensors:
        given = {id(t.held if isinstance(t, Elsewhere) else t): t for t in tensors}
        same = tree_map_only(Tensor, lambda r: given.get(id(r), r), result)
        return tree_map_only(Tensor, lambda r: Elsewhere(r) if wraps and not isinstance(r, Elsewhere) else r, same)
    return tree_map_only(Tensor, Elsewhere, result) if wraps else result


@contextmanager
def simulated_device() -> Iterator[torch.device]:
    """Inside, PyTorch has the device; there are no streams, events or kernels of it."""
    original, tensor = torch.Generator, torch.tensor

    class Generator:  # there is none on a device that there is not
        def __new__(cls, *_: object) -> torch.Generator:  # type: ignore[misc]
            return original()

    with pytest.MonkeyPatch.context() as patch, _Everywhere():  # type: ignore[no-untyped-call]
        patch.setattr("autoprune.task.task.checked_device", lambda _: DEVICE)
        patch.setattr(torch, "Generator", Generator)
        patch.setattr(torch, "tensor", lambda data, device=None, **o: tensor(data, **o).to(device or "cpu"))
        for module in ("judge", "prefix"):  # no wrappers can be made in inference mode
            patch.setattr(f"autoprune.evaluation.{module}.outputs_of", torch.no_grad()(vars(outputs_of)["__wrapped__"]))
        yield DEVICE
