"""Modules whose own code names sizes as numbers, such as `x.view(-1, 800)`: their methods run with other numbers.

The numbers are constants of the methods' code, whole numbers of the file that they stand in, or of the function that
made the class. Sizes that are computed are never among them.
"""

import functools
from collections.abc import Iterator, Mapping
from types import CellType, CodeType, FunctionType
from typing import Any, cast

from torch import nn

from autoprune.structure.instance_class import InstanceClass, class_with, class_without, parts_of

LITERAL = "literal"  # of an attribute's name: "literal[800]"
SMALLEST = 2  # numbers below are no sizes
KEPT_CLASSES = 256  # of modules with other numbers, most of which one plan needs and no other


class LiteralSizes(InstanceClass):
    """What a module inherits from, before its own class, while numbers in its code are others."""

    literal_sizes: dict[int, int]
    """Number in the class's code → what stands in its place."""

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        mixins, kind = parts_of(type(self))
        others = [mixin for mixin in mixins if not issubclass(mixin, LiteralSizes)]
        return _restored, (kind, tuple(others), tuple(self.literal_sizes.items())), self.__dict__.copy()


def literal_sizes(module: nn.Module) -> dict[int, int]:
    """The numbers in the code of a module's methods, each with what stands in its place: itself where nothing does.

    Args:
        module: Of torch's own, whose code names no sizes, none are returned.
    """
    kind = class_without(LiteralSizes, type(module))
    return {number: number for number in _numbers_of(kind)} | _changed(module)


def set_literal_size(module: nn.Module, number: int, size: int) -> None:
    """The module's methods run with `size` in the place of the number; its class is another one meanwhile.

    Args:
        module: In whose code the number stands.
        number: At least 2.
        size: At least 0; the number itself ends it.
    """
    sizes = {key: value for key, value in (_changed(module) | {number: size}).items() if key != value}
    kind = class_without(LiteralSizes, type(module))
    module.__dict__.pop("literal_sizes", None)
    if sizes:
        module.__dict__["literal_sizes"] = sizes
    module.__class__ = _class_with(kind, tuple(sizes.items())) if sizes else kind


def lower_literal(module: nn.Module, name: str, by: int) -> None:
    """The number of an attribute such as "literal[800]" goes down.

    Args:
        module: In whose code it stands.
        name: Of the attribute.
        by: So much; below 0 puts it up again.
    """
    number = int(name[len(LITERAL) + 1 : -1])
    set_literal_size(module, number, _changed(module).get(number, number) - by)


def changed_literals(network: nn.Module) -> dict[str, dict[str, int]]:
    """Module → the numbers of its code that are others, as text, each with what stands in its place."""
    changed = {name: _changed(module) for name, module in network.named_modules()}
    return {name: {str(number): size for number, size in own.items()} for name, own in changed.items() if own}


def _changed(module: nn.Module) -> dict[int, int]:
    return dict(module.literal_sizes) if isinstance(module, LiteralSizes) else {}


def _restored(kind: Any, mixins: tuple[Any, ...], sizes: tuple[tuple[int, int], ...]) -> nn.Module:
    for mixin in mixins:
        kind = class_with(mixin, kind)
    made = _class_with(kind, sizes)
    return cast(nn.Module, made.__new__(made))


@functools.lru_cache(KEPT_CLASSES)
def _class_with(kind: Any, sizes: tuple[tuple[int, int], ...]) -> Any:
    """The class with the methods that name one of the numbers made anew."""
    others = dict(sizes)
    methods = {name: _rewritten(own, others) for name, own in _methods(kind) if others.keys() & _numbers_in(own)}
    mixin = type(LiteralSizes.__name__, (LiteralSizes,), {"__module__": LiteralSizes.__module__, **methods})
    attributes = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (mixin, kind), attributes)


def _methods(kind: type[nn.Module]) -> Iterator[tuple[str, FunctionType]]:
    """The functions that a module of the class is called by, but for those of torch and the one that made it."""
    names = set()
    for own in kind.__mro__:
        if own.__module__.startswith("torch.") or own is object:
            continue
        for name, value in vars(own).items():
            if name not in names and isinstance(value, FunctionType) and name != "__init__":
                yield name, value
            names.add(name)


@functools.lru_cache(KEPT_CLASSES)
def _numbers_of(kind: Any) -> tuple[int, ...]:
    return tuple(sorted({number for _, function in _methods(kind) for number in _numbers_in(function)}))


def _numbers_in(function: FunctionType) -> set[int]:
    values = [*_constants(function.__code__), *_globals_of(function).values(), *_cells(function)]
    return {abs(value) for value in values if type(value) is int and abs(value) >= SMALLEST}


def _constants(code: CodeType) -> Iterator[Any]:
    """All constants of the code, and of what is defined in it."""
    waiting = list(code.co_consts)
    while waiting:
        value = waiting.pop()
        if isinstance(value, CodeType):
            waiting += value.co_consts
        elif isinstance(value, tuple):
            waiting += value
        else:
            yield value


def _globals_of(function: FunctionType) -> dict[str, Any]:
    """The file's whole numbers that the function may read."""
    codes, names = [function.__code__], set[str]()
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return {name: function.__globals__[name] for name in names if type(function.__globals__.get(name)) is int}


def _cells(function: FunctionType) -> list[Any]:
    """What the function reads of the one that it was made in; None of what that has not set."""
    return [_contents(cell) for cell in function.__closure__ or ()]


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _rewritten(function: FunctionType, sizes: Mapping[int, int]) -> FunctionType:
    own = {name: _other(value, sizes) for name, value in _globals_of(function).items() if abs(value) in sizes}
    cells = tuple(
        CellType(_other(value, sizes)) if type(value := _contents(cell)) is int and abs(value) in sizes else cell
        for cell in function.__closure__ or ()
    )
    made = FunctionType(
        _with_constants(function.__code__, sizes), {**function.__globals__, **own} if own else function.__globals__,
        function.__name__, function.__defaults__, cells,
    )  # fmt: skip
    made.__kwdefaults__, made.__doc__ = function.__kwdefaults__, function.__doc__
    made.__qualname__, made.__module__ = function.__qualname__, function.__module__
    made.__dict__.update(function.__dict__)
    return made


def _with_constants(code: CodeType, sizes: Mapping[int, int]) -> CodeType:
    return code.replace(co_consts=tuple(_other(constant, sizes) for constant in code.co_consts))


def _other(value: Any, sizes: Mapping[int, int]) -> Any:
    if isinstance(value, CodeType):
        return _with_constants(value, sizes)
    if type(value) is tuple:
        return tuple(_other(part, sizes) for part in value)
    if type(value) is not int or abs(value) not in sizes:
        return value
    return sizes[abs(value)] * (1 if value > 0 else -1)
