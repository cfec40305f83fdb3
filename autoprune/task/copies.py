"""Copies of networks, which every smaller one is made of: none of them may compute with parts of the dense one."""

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import CellType, FunctionType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Copied = TypeVar("Copied", bound=nn.Module)


def copied(network: Copied, shared: Mapping[int, Tensor] | None = None) -> Copied:
    """A deep copy. Its hooks and other functions that hold parts of the network hold those of the copy instead.

    copy.deepcopy shares functions, so that a hook, or a `forward` that was set on the network, would go on with its
    modules; and it refuses activations that a forward pass has left on the network.

    Args:
        network: Stays as it is.
        shared: id of a tensor → what the copy has in its place; None: copies of all.
    """
    memo: dict[int, Any] = dict(shared or {})
    for module in network.modules():
        memo |= {id(tensor): tensor.detach() for tensor in _activations(vars(module)) if id(tensor) not in memo}
    twin = copy.deepcopy(network, memo)
    for module in twin.modules():
        _settle(vars(module), memo)
    return twin


def check_copies(network: nn.Module, run: Callable[[nn.Module], object]) -> None:
    """Raises ValueError where the network cannot be copied, or a copy computes with the network's own parameters.

    No parameter is copied for it.

    Args:
        network: In the mode that it runs in.
        run: Calls a network as it is called on samples.
    """
    plain = [p for p in network.parameters() if type(p) is nn.Parameter]
    own: dict[int, Tensor] = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    own |= {id(p): nn.Parameter(p.detach(), requires_grad=p.requires_grad) for p in plain}
    try:
        twin = copied(network, own)
    except Exception as error:
        raise ValueError(
            f"the network cannot be copied, and every smaller one begins as a copy ({type(error).__name__}: {error}); "
            f"{_culprit(network, own)}, or write a __deepcopy__ that does without"
        ) from error
    with torch.random.fork_rng(devices=[]), torch.no_grad(), _Reads({id(p) for p in plain}) as reads:
        run(twin)
    read = next((name for name, parameter in network.named_parameters() if id(parameter) in reads.seen), None)
    if read is not None:
        raise ValueError(
            f"a copy of the network computes with the network's own {read}, so that every pruned network would compute "
            "what the dense one does; task.forward must call the network that it is given, and functions of the "
            "network's own must take its modules from self"
        )


class _Reads(TorchFunctionMode):
    """Remembers which of some tensors functions are called with."""

    def __init__(self, watched: set[int]) -> None:
        super().__init__()
        self.watched, self.seen = watched, set[int]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        values = [*args, *(kwargs or {}).values()]
        lists = (each for value in values if isinstance(value, list | tuple) for each in value)
        self.seen |= self.watched & {id(value) for value in (*values, *lists)}
        return func(*args, **(kwargs or {}))


def _culprit(network: nn.Module, own: dict[int, Tensor]) -> str:
    for name, module in network.named_modules():
        for key, value in vars(module).items():
            try:
                copy.deepcopy(value, dict(own)) if not key.startswith("_") else None
            except Exception:
                where = f"model.{name}.{key}" if name else f"model.{key}"
                return f"take {where}, a {type(value).__name__}, off it"
    return "take what cannot be copied off it"


def _activations(values: object) -> Iterator[Tensor]:
    """Tensors with a history, in a container or in those that it holds."""
    for value in values.values() if isinstance(values, dict) else values if isinstance(values, list | tuple) else ():
        if isinstance(value, Tensor) and not value.is_leaf:
            yield value
        yield from _activations(value)


def _settle(values: Any, memo: dict[int, Any]) -> None:
    """Functions in a dict or list of a copy hold what it holds from here on."""
    for key, value in list(values.items() if isinstance(values, dict) else enumerate(values)):
        if isinstance(value, dict | list):
            _settle(value, memo)
        elif isinstance(value, FunctionType | partial) and _holds(value, memo, set()):
            values[key] = _rebound(value, memo)


def _held(value: object) -> Iterator[object]:
    """What a function, or a container that one holds, holds itself."""
    if isinstance(value, FunctionType):
        for cell in value.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # nothing was put there yet
                continue
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
    elif isinstance(value, partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value


def _holds(value: object, memo: Mapping[int, Any], looked: set[int]) -> bool:
    """Whether something of what was copied is held."""
    if id(value) in looked:
        return False
    looked.add(id(value))
    return id(value) in memo or any(_holds(each, memo, looked) for each in _held(value))


def _rebound(value: Any, memo: dict[int, Any]) -> Any:
    """The value, or one like it that holds the copies."""
    if id(value) in memo:
        return memo[id(value)]
    if not _holds(value, memo, set()):
        return value
    if not isinstance(value, FunctionType):
        if isinstance(value, partial):
            return partial(_rebound(value.func, memo), *(_rebound(v, memo) for v in value.args),
                           **{k: _rebound(v, memo) for k, v in value.keywords.items()})  # fmt: skip
        return copy.deepcopy(value, memo)  # a container, which those that share it go on sharing
    cells = tuple(CellType() for _ in value.__closure__ or ())
    made = FunctionType(value.__code__, value.__globals__, value.__name__, None, cells or None)
    memo[id(value)] = made
    made.__dict__.update(value.__dict__)
    made.__defaults__ = value.__defaults__ and tuple(_rebound(each, memo) for each in value.__defaults__)
    made.__kwdefaults__ = value.__kwdefaults__ and {k: _rebound(v, memo) for k, v in value.__kwdefaults__.items()}
    for new, old in zip(cells, value.__closure__ or (), strict=True):
        try:
            new.cell_contents = _rebound(old.cell_contents, memo)
        except ValueError:
            continue
    return made
