"""What values may be: types for the signatures of whatever a configuration describes, which settings are checked by.

A range stands beside its type, in the signature, so that the command line refuses what lies outside before anything
is paid for, and the documentation of a parameter needs no second place.
"""

import collections.abc
import dataclasses
import difflib
import functools
import inspect
import numbers as numbers_abc
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set, Sized
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AfterValidator
from pydantic_core import core_schema

T = TypeVar("T")

Count = Annotated[int, Ge(1)]
"""How many of something there must be: 1, 2, …"""
Batch = Annotated[int, Ge(2)]
"""Samples that statistics are taken over."""
Natural = Annotated[int, Ge(0)]
"""How many of something there may be: 0, 1, …"""
Seed = Annotated[int, Ge(0), Lt(2**63)]
"""Where random numbers begin; PyTorch takes 63 bits."""
Threads = Annotated[int, Ge(1), Le(1024)]
"""Threads of one process; the process ends where the system cannot make as many."""
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
FinitePositive = Annotated[float, Gt(0), Lt(float("inf"))]
FiniteNonNegative = Annotated[float, Ge(0), Lt(float("inf"))]
Fraction = Annotated[float, Ge(0), Le(1)]
"""A part of something, that may be nothing and all of it."""
Share = Annotated[float, Gt(0), Le(1)]
"""A part of something that is not nothing."""
Density = Annotated[float, Gt(0), Lt(1)]
"""A part that is kept: not nothing, and not everything."""
Growth = Annotated[float, Gt(1)]
"""By which something is multiplied so that it grows."""
Text = Annotated[str, MinLen(1)]


class OneOf:
    """The only values that there may be, where they are not written down as a Literal.

    >>> Annotated[str, OneOf(["cpu", "cuda"])].__metadata__[0].choices
    ('cpu', 'cuda')
    """

    def __init__(self, choices: Iterable[str | int]) -> None:
        self.choices = tuple(choices)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.literal_schema(list(self.choices))


def _project_name(text: str) -> str:
    if not 1 <= len(text) <= 128 or set(text) & set("/\\#?%:"):
        raise ValueError(f"a project has 1 to 128 characters, none of them of / \\ # ? % :, got {text!r}")
    return text


ProjectName = Annotated[str, AfterValidator(_project_name)]
"""A project of Weights & Biases."""


def device_name(name: str) -> str:
    """Returns the name of a device. Raises ValueError where it is not written as one."""
    kind, colon, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and (kind == "cpu" or not number.isdecimal())):
        raise ValueError(
            f"it is cpu, cuda or one of several such as cuda:1, got {name!r}; a network that needs several at once is "
            "placed by a task of your own (docs/scaling.md)"
        )
    return name


DeviceName = Annotated[str, AfterValidator(device_name)]
"""Of what computes: cpu, cuda, or cuda:N."""


def check_fields(owner: object, where: str) -> None:
    """Every field of a dataclass holds what its annotation allows, or its default; lists are tuples where it says so.

    Classes are asked by isinstance, functions by callable; what an annotation does not say is not checked.

    Args:
        owner: The dataclass, in its `__post_init__`.
        where: What its fields are called for whoever sets them, such as `evaluation.race`; may be empty.

    Raises:
        TypeError: A field has another type.
        ValueError: A field is outside its range, or none of its choices.
    """
    kind: Any = type(owner)
    for name, (hint, default) in _fields(kind).items():
        value = getattr(owner, name)
        if value is not default:
            if isinstance(value, list | Set | Iterator) and _is_of_tuples(hint):
                value = tuple(value)
                object.__setattr__(owner, name, value)  # which may be frozen
            check_value(value, hint, f"{where}.{name}" if where else name)


def check_value(value: object, hint: Any, name: str) -> None:
    """A value is what a type hint allows.

    Args:
        value: Anything.
        hint: A type hint, with ranges of this module.
        name: What the value is called in the sentence.

    Raises:
        TypeError: It has another type.
        ValueError: It is outside its range, or none of its choices.
    """
    fault = _fault(value, hint)
    if fault is not None:
        kind, allowed = fault
        plain = isinstance(value, bool | int | float | str | bytes | NoneType | list | tuple | dict)
        got = repr(value) if plain and len(repr(value)) < LONGEST else _called(value)
        raise kind(f"{name} must be {allowed}, got {got}")


def checked_call(
    function: Callable[..., T], given: Mapping[str, Any], *, owner: str, options: Mapping[str, Any] | None = None
) -> T:
    """Returns what the function returns for these arguments, all of which it takes.

    Every fault is a ValueError: to a TypeError, Gymnasium adds the whole task.

    Args:
        function: A function or class with type hints, with keyword-only arguments.
        given: Name of an argument → its value.
        owner: Whose arguments they are, in sentences.
        options: Name → type hint of what `**` of the function takes; None for what its hint says.

    Raises:
        ValueError: An argument is missing, unknown, of another type or outside its range.
    """
    own = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    hints = get_type_hints(own, include_extras=True)
    parameters = [each for each in inspect.signature(function).parameters.values() if each.name != "self"]
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD and options is None:
            options = get_type_hints(get_args(hints[parameter.name])[0], include_extras=True)
    named = {each.name: hints[each.name] for each in parameters if each.kind is not each.VAR_KEYWORD}
    allowed = {**named, **(options or {})}
    if unknown := sorted(given.keys() - allowed.keys()):
        raise ValueError(
            f"{owner} has no option {unknown[0]!r}{nearest(unknown[0], allowed)}; it has " + ", ".join(sorted(allowed))
        )
    for parameter in parameters:
        name = parameter.name
        if parameter.default is parameter.empty and name in named and name not in given:
            kind = (_fault(object(), named[name]) or (None, "given"))[1]
            raise ValueError(f"{owner} needs {name}, which must be {kind}")
    try:
        for name, value in given.items():
            check_value(value, allowed[name], name)
        return function(**given)
    except TypeError as error:
        raise ValueError(str(error)) from error


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean …?`, or nothing where no name is near.

    Args:
        name: What somebody wrote.
        names: Names that there are.
    """
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""


P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Returns the function, which refuses arguments that its own type hints do not allow.

    Args:
        function: With ranges of this module in its signature.
    """
    signature = inspect.signature(function)
    hints = get_type_hints(function, include_extras=True)

    @functools.wraps(function)
    def refusing(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            check_value(value, hints[name], name)
        return function(*args, **kwargs)

    return refusing


Fault = tuple[type[TypeError] | type[ValueError], str]  # what to raise, and what is allowed
BOUNDS = {  # of annotated_types: how they compare, in words, as the end of an interval
    "ge": (operator.ge, "at least", "["),
    "gt": (operator.gt, "above", "("),
    "le": (operator.le, "at most", "]"),
    "lt": (operator.lt, "below", ")"),
}
LONGEST = 100  # characters of a value that a sentence repeats
NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "True or False", NoneType: "None"}
LISTS = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Set, collections.abc.Iterable)


@functools.cache
def _fields(owner: Any) -> dict[str, tuple[Any, object]]:
    hints = get_type_hints(owner, include_extras=True)
    return {field.name: (hints[field.name], field.default) for field in dataclasses.fields(owner)}


def _is_of_tuples(hint: Any) -> bool:
    """Whether a type hint is of a tuple, or allows one."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Annotated, Union, UnionType):
        return any(map(_is_of_tuples, arguments))
    return origin is tuple


def _fault(value: object, hint: Any) -> Fault | None:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fault(value, arguments[0]) or _outside(value, hint.__metadata__)
    if origin in (Union, UnionType):
        faults = [_fault(value, argument) for argument in arguments]
        if None in faults:
            return None
        wrong = [fault for fault in faults if fault is not None]
        kind = ValueError if any(kind is ValueError for kind, _ in wrong) else TypeError
        return kind, " or ".join(dict.fromkeys(allowed for _, allowed in wrong))
    if origin is Literal:
        return None if value in arguments else (ValueError, _listed(arguments))
    if origin is collections.abc.Callable:
        return None if callable(value) else (TypeError, "a function")
    if origin in LISTS:
        if isinstance(value, str | bytes) or not isinstance(value, collections.abc.Iterable):
            return TypeError, "a list"
        if origin is tuple and ... not in arguments and isinstance(value, Sized) and len(value) != len(arguments):
            return TypeError, f"a list of {len(arguments)}"
        faults = [_fault(each, arguments[0]) for each in value] if len({*arguments} - {...}) == 1 else []
        return next(((kind, f"a list of which each is {allowed}") for kind, allowed in filter(None, faults)), None)
    if origin is collections.abc.Mapping and isinstance(value, collections.abc.Mapping):
        faults = [_fault(each, own) for pair in value.items() for each, own in zip(pair, arguments, strict=True)]
        return next(((kind, f"a mapping of which each is {allowed}") for kind, allowed in filter(None, faults)), None)
    plain = hint if origin is None else origin
    if plain is Any or not isinstance(plain, type) or _is_a(value, plain):
        return None
    return TypeError, NAMES.get(plain) or f"{'an' if plain.__name__[0] in 'AEIOU' else 'a'} {plain.__name__}"


def _is_a(value: object, kind: type) -> bool:
    if kind in (int, float):
        numbers = numbers_abc.Integral if kind is int else numbers_abc.Real
        return isinstance(value, numbers) and not isinstance(value, bool)
    if getattr(kind, "_is_protocol", False):
        return "__call__" not in dir(kind) or callable(value)
    return isinstance(value, kind)


def _outside(value: Any, metadata: Sequence[Any]) -> Fault | None:
    """What the ranges beside a type say of a value of that type."""
    for rule in metadata:
        if isinstance(rule, OneOf) and value not in rule.choices:
            return ValueError, _listed(rule.choices)
        if isinstance(rule, MinLen) and len(value) < rule.min_length:
            return ValueError, "not empty"
    bounds = {name: getattr(rule, name) for rule in metadata for name in BOUNDS if hasattr(rule, name)}
    if all(BOUNDS[name][0](value, bound) for name, bound in bounds.items()):
        return None
    if len(bounds) == 1:
        return ValueError, "".join(f"{BOUNDS[name][1]} {bound}" for name, bound in bounds.items())
    (low, least), (high, most) = bounds.items()
    return ValueError, f"in {BOUNDS[low][2]}{least}, {most}{BOUNDS[high][2]}"


def _listed(choices: Sequence[object]) -> str:
    *others, last = map(str, choices)
    return f"{', '.join(others)} or {last}" if others else last


def _called(value: object) -> str:
    """`a Tensor` for one, `the class Tensor` for the class itself."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0].upper() in 'AEIOU' else 'a'} {name}"
