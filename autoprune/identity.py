"""What a thing is, as a short text: equal for equal content, on any day and in any process."""

import functools
import hashlib
import inspect
from collections.abc import Mapping
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.structure.block_sparse import patterns_of
from autoprune.structure.groups import Structure

BARE = frozenset(vars(nn.Module()))  # attributes that every layer has, `training` among them


def identity_of(thing: Any) -> str:
    """A hash of a network's weights and layers, of groups, tensors, functions, or of plain values.

    A function is its name, its compiled code and the values it holds, so that an edited metric is another metric; so is
    the forward pass of a layer that is not torch's own. What has neither content nor code is what it says of itself
    (`repr`), which must then not hold an address.
    """
    digest = hashlib.sha256()
    _add(digest.update, thing)
    return digest.hexdigest()[:16]


def _add(update: Any, thing: Any) -> None:
    match thing:
        case nn.Module():
            update(repr(thing).encode())
            for kind in dict.fromkeys(type(layer) for layer in thing.modules()):
                code = getattr(inspect.unwrap(kind.forward), "__code__", None)
                if code is not None and kind.__module__.partition(".")[0] != "torch":
                    _add_code(update, code)
            for name, layer in thing.named_modules():  # what a layer was built with is not always in its repr
                update(
                    repr((name, [(k, v) for k, v in vars(layer).items() if k not in BARE and _is_plain(v)])).encode()
                )
            for installed in patterns_of(thing):  # which neither code nor weights tell
                update(repr(installed).encode())
            _add(update, dict(thing.state_dict()))
        case Structure():
            for group in thing.groups:
                update(repr((group.name, group.granularity, group.units, group.levels)).encode())
                for pattern in group.patterns:
                    update(repr(pattern).encode())
                for member in group.members:
                    update(repr((member.layer, member.axis)).encode())
                    _add(update, member.positions)
        case torch.Tensor():
            update(repr((tuple(thing.shape), str(thing.dtype))).encode())
            flat = thing.detach().cpu().contiguous().flatten()
            update(flat.view(torch.uint8).numpy() if flat.ndim and flat.numel() else b"")  # in place, not as a copy
        case np.ndarray():
            update(repr((thing.shape, str(thing.dtype))).encode() + np.ascontiguousarray(thing).tobytes())
        case Mapping():
            for key, value in thing.items():
                update(repr(key).encode())
                _add(update, value)
        case functools.partial():
            _add(update, thing.func)
            _add(update, [*thing.args, *sorted(thing.keywords.items())])
        case list() | tuple():
            update(f"{len(thing)} of ".encode())
            for part in thing:
                _add(update, part)
        case _ if hasattr(thing, "__code__"):
            update(f"{thing.__module__}.{thing.__qualname__}".encode())
            _add_code(update, thing.__code__)
            held = [cell.cell_contents for cell in thing.__closure__ or () if cell.cell_contents is not thing]
            held += [thing.__defaults__, thing.__kwdefaults__]
            _add(update, [*held, getattr(thing, "__self__", None)])
        case _:
            text = repr(thing)
            if " at 0x" in text:
                raise ValueError(
                    f"{text} has no identity from one process to the next, and outcomes cannot be stored by it: use a "
                    "function or a frozen dataclass, or evaluation.store=null"
                )
            update(text.encode())


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _add_code(update: Any, code: CodeType) -> None:
    update(code.co_code + repr(code.co_names).encode())
    for constant in code.co_consts:
        match constant:
            case CodeType():  # of a function inside
                _add_code(update, constant)
            case frozenset():  # in another order in another process
                update(repr(sorted(map(repr, constant))).encode())
            case _:
                update(repr(constant).encode())
