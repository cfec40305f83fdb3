"""What a thing is, as a short text: equal for equal content, on any day and in any process."""

import functools
import hashlib
import inspect
import pickle
import sys
import sysconfig
from collections.abc import Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.structure.block_sparse import patterns_of
from autoprune.structure.groups import Structure

STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]
BARE = frozenset(vars(nn.Module()))  # attributes that every layer has, `training` among them


def identity_of(thing: Any, *, called: str = "it") -> str:
    """A hash of a network's weights and layers, of groups, tensors, functions, objects, or of plain values.

    A function is its name, its compiled code, the functions of its own module that it calls, and the values it holds,
    so that an edited metric is another metric; so is the forward pass of a layer that is not torch's own. One of an
    installed package is its name and the package's version. An object is its class and what it holds.

    Args:
        thing: What is asked about.
        called: Its name in an error.

    Raises:
        ValueError: It holds something without content, such as an open file.
    """
    digest = hashlib.sha256()
    try:
        _add(digest.update, thing, seen=set())
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise ValueError(
            f"{called}, {thing!r}, has no identity from one process to the next, and outcomes cannot be stored by it "
            f"({error}); use a function or a frozen dataclass, or evaluation.store=null"
        ) from error
    return digest.hexdigest()[:16]


def _add(update: Any, thing: Any, seen: set[int]) -> None:
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
            _add(update, dict(thing.state_dict()), seen)
        case Structure():
            for group in thing.groups:
                update(repr((group.name, group.granularity, group.units, group.levels)).encode())
                for pattern in group.patterns:
                    update(repr(pattern).encode())
                for member in group.members:
                    update(repr((member.layer, member.axis)).encode())
                    _add(update, member.positions, seen)
        case torch.Tensor():
            update(repr((tuple(thing.shape), str(thing.dtype))).encode())
            flat = thing.detach().cpu().contiguous().flatten()
            update(flat.view(torch.uint8).numpy() if flat.ndim and flat.numel() else b"")  # in place, not as a copy
        case np.ndarray():
            update(repr((thing.shape, str(thing.dtype))).encode() + np.ascontiguousarray(thing).tobytes())
        case Mapping():
            for key, value in thing.items():
                update(repr(key).encode())
                _add(update, value, seen)
        case functools.partial():
            _add(update, [thing.func, *thing.args, *sorted(thing.keywords.items())], seen)
        case list() | tuple():
            update(f"{len(thing)} of ".encode())
            for part in thing:
                _add(update, part, seen)
        case set() | frozenset():  # in another order in another process
            update(repr(sorted(map(repr, thing))).encode())
        case type() | ModuleType():
            update(getattr(thing, "__qualname__", thing.__name__).encode() + _version(thing))
        case _ if id(thing) in seen:  # a function that calls itself
            update(b"again")
        case _ if hasattr(thing, "__code__") or isinstance(thing, BuiltinFunctionType | MethodType):
            _add_function(update, thing, seen | {id(thing)})
        case _ if _is_plain(thing) or type(thing).__module__ in ("torch", "pathlib") or isinstance(thing, np.generic):
            update(repr(thing).encode())
        case _:
            _add_object(update, thing, seen | {id(thing)})


def _add_function(update: Any, thing: Any, seen: set[int]) -> None:
    update(f"{thing.__module__}.{thing.__qualname__}".encode())
    owner = getattr(thing, "__self__", None)
    if owner is not None:
        _add(update, owner, seen)
    if version := _version(thing):
        update(version)
        return
    _add_code(update, thing.__code__)
    held = [cell.cell_contents for cell in thing.__closure__ or ()]
    called = [thing.__globals__.get(name) for name in thing.__code__.co_names]
    own = [c for c in called if isinstance(c, FunctionType) and c.__module__ == thing.__module__]
    _add(update, [*held, thing.__defaults__, thing.__kwdefaults__, *own], seen)


def _add_object(update: Any, thing: Any, seen: set[int]) -> None:
    """By its class, the code that calls it, and what it holds."""
    kind = type(thing)
    update(f"{kind.__module__}.{kind.__qualname__}".encode() + _version(kind))
    call = next((vars(base)["__call__"] for base in kind.__mro__ if "__call__" in vars(base)), None)
    if isinstance(call, FunctionType):
        _add_function(update, call, seen)
    slots = sorted({s for base in kind.__mro__ for s in getattr(base, "__slots__", ()) if not s.startswith("__")})
    state = {name: getattr(thing, name) for name in slots if hasattr(thing, name)} | getattr(thing, "__dict__", {})
    if state:
        _add(update, state, seen)
    elif not isinstance(call, FunctionType):  # what it holds is seen from C only
        update(pickle.dumps(thing, protocol=4))


def _version(thing: Any) -> bytes:
    """The version of the installed package that something is of; empty for what stands in somebody's own files."""
    name = str(getattr(thing, "__module__", None) or getattr(thing, "__name__", ""))
    module, top = sys.modules.get(name), sys.modules.get(name.partition(".")[0])
    file = getattr(module, "__file__", None)
    if name in sys.builtin_module_names or (module is not None and file is None and name != "__main__"):
        return sys.version.encode()
    if file is not None and ("site-packages" in file or "dist-packages" in file or file.startswith(STANDARD_LIBRARY)):
        return str(getattr(top, "__version__", sys.version)).encode()
    return b""


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
