"""Modules with a class of their own, a mixin's and theirs: no method is replaced on an instance.

torch's parametrizations and FSDP do the same. Such modules are copied and pickled as others are.
"""

from typing import Any, cast

from torch import nn


class InstanceClass:
    """What a mixin inherits from that `class_with` puts before a module's own class."""

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        mixins, kind = parts_of(type(self))
        return _restored, (kind, *mixins), self.__dict__.copy()


def class_with(mixin: type[InstanceClass], kind: type[nn.Module]) -> Any:
    """Returns the subclass of both, always the same, which is called as the second.

    Args:
        mixin: What comes first.
        kind: The class of a module, which may have other mixins.
    """
    if (mixin, kind) not in _CLASSES:
        attributes = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        _CLASSES[mixin, kind] = type(kind.__name__, (mixin, kind), attributes)
    return _CLASSES[mixin, kind]


def class_without(mixin: type[InstanceClass], kind: type[nn.Module]) -> Any:
    """Returns the class without that mixin; others stay.

    Args:
        mixin: What goes wherever it stands; InstanceClass for all.
        kind: The class of a module.
    """
    mixins, own = parts_of(kind)
    return _class_of(own, *(each for each in mixins if not issubclass(each, mixin)))


def parts_of(kind: type) -> tuple[list[type[InstanceClass]], Any]:
    """The mixins, the innermost first, and the module's own class."""
    mixins: list[type[InstanceClass]] = []
    while issubclass(kind, InstanceClass):
        mixin, kind = kind.__bases__
        mixins.insert(0, cast(type[InstanceClass], mixin))
    return mixins, kind


def _class_of(kind: type[nn.Module], *mixins: type[InstanceClass]) -> Any:
    for mixin in mixins:
        kind = class_with(mixin, kind)
    return kind


def _restored(kind: type[nn.Module], *mixins: type[InstanceClass]) -> nn.Module:
    made = _class_of(kind, *mixins)
    return cast(nn.Module, made.__new__(made))


_CLASSES: dict[tuple[type, type], type] = {}
