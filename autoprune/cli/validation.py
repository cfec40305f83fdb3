"""Settings are checked against the signatures of what they describe, before anything is made of them.

A node of a configuration with a `_target_` may say what the target's signature says: its parameters are the keys, its
type hints the types and ranges (autoprune.ranges), its defaults what may be left out. So there is one place for all
three, and a target of the user's own is checked as autoprune's are. pydantic validates, strictly: 1.5, true and "5" are
no integers, NaN is no number.
"""

import collections.abc
import contextlib
import difflib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, ConfigDict, GetPydanticSchema, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError, core_schema

from autoprune.cli.parts import named_target

STRICT = ConfigDict(strict=True, allow_inf_nan=False)
VALUES = (bool, int, float, str, Path, NoneType, list, tuple, dict, set, frozenset)
CONTAINERS = (list, tuple, dict, set, frozenset, collections.abc.Sequence, collections.abc.Mapping)
HYDRAS = ("_target_", "_partial_", "_args_", "_convert_", "_recursive_")

WORDS = {
    "^Input should ": "",
    "^be (a )?": r"\1",
    "valid ": "",
    "^a (?=[aeiou])": "an ",
    "an array": "a list",
    "an object|a dictionary": "a group of settings",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "above",
    "less than": "below",
    "^match pattern": "a text like",
}

Keys = tuple[str, ...]


class SettingsError(ValueError):
    """Settings that are not what they may be, one sentence for each."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the signatures of targets do not say."""

    hints: Mapping[str, Any] = field(default_factory=dict)
    """Full key, with * for any part → its type, in the place of the signature's."""
    at_run_time: Mapping[str, collections.abc.Set[str]] = field(default_factory=dict)
    """Top-level key → parameters of its partial targets that the code passes when it calls them."""
    mappings: Mapping[str, Any] = field(default_factory=dict)
    """Target, by its full name → the key of one of its mappings, and a function of the node's settings that returns
    that mapping's keys and their types."""


class Section:
    """A group of settings without a `_target_`: annotations are its keys, and those that have a value are optional."""


@dataclass(frozen=True, slots=True)
class FieldsOf:
    """Beside a type: the setting is a group without a `_target_`, whose keys are the parameters of a class."""

    name: str
    """Of the class, which is imported when a configuration is checked."""


def check(
    settings: Mapping[str, Any],
    section: type[Section],
    rules: Rules,
    *,
    command: str,
    overrides: Sequence[str] | None = None,
) -> None:
    """Every setting has a type and a range that its command can use, and there is no other setting.

    Where a person set only the command's own settings, these are first: a misspelt one is answered before any target is
    imported, and with it torch. Otherwise all that is wrong is said at once.

    Args:
        settings: The composed configuration, interpolations resolved.
        section: What the command may be told.
        rules: What signatures do not say.
        command: For messages, such as "autoprune search".
        overrides: What the person set, as KEY=VALUE; None where nobody knows.

    Raises:
        SettingsError: One sentence for each setting that is not what it may be, with its full key.
    """
    own = overrides is not None and not any(map(_of_a_part, overrides))
    for parts in (False, True) if own else (True,):
        form = _Form(rules, command, frozenset(_key(each) for each in overrides or ()), parts=parts)
        adapter: TypeAdapter[Any] = TypeAdapter(form.of_section(settings, section, ()), config=STRICT)
        try:
            adapter.validate_json(json.dumps(settings, default=str))
        except ValidationError as errors:
            if sentences := list(form.sentences(errors, settings)):
                raise SettingsError("\n".join(sentences)) from None


def _of_a_part(override: str) -> bool:
    """Whether it sets something inside a group of settings, which only the group's target can judge."""
    key, _, value = override.partition("=")
    return ("." in key and not key.startswith("hydra.")) or "{" in value


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def dotted(keys: Sequence[str]) -> str:
    """The full name of a setting, `agent.agent.hidden[0]`."""
    return ".".join(keys).replace(".[", "[")


@dataclass(frozen=True, slots=True)
class _Form:
    """The pydantic types of one configuration, and for messages what they were made of."""

    rules: Rules
    command: str
    overridden: frozenset[str]
    """Full keys that the person set."""
    parts: bool
    """Whether groups of settings are looked into, which imports what they are settings of."""
    names: dict[Keys, list[str]] = field(default_factory=dict)
    targets: dict[Keys, str] = field(default_factory=dict)
    optional: set[Keys] = field(default_factory=set)

    def of_section(self, settings: Mapping[str, Any], section: type[Section], keys: Keys) -> Any:
        hints = get_type_hints(section, include_extras=True)
        required = {name for name in hints if not hasattr(section, name)}
        return self._mapping(settings, hints, keys, required=required)

    def of(self, value: Any, hint: Any, keys: Keys, *, own: bool) -> Any:
        """The type that checks this value. own: the hint is autoprune's, which says what it means."""
        if not self.parts and (isinstance(value, Mapping) or _holds_nodes(value)):
            return Any
        if (rule := self._rule(keys)) is not None:
            hint, own = rule, True
        if NoneType in get_args(hint) or hint is Any:
            self.optional.add(keys)
        fields = next((each for each in getattr(hint, "__metadata__", ()) if isinstance(each, FieldsOf)), None)
        if fields is not None:
            target = pkgutil.resolve_name(fields.name)
            if not isinstance(value, Mapping):
                return _refused(f"a group of {', '.join(inspect.signature(target).parameters)}")
            return self._of_signature(value, target, fields.name, keys)
        if isinstance(value, Mapping):
            if "_target_" in value:
                return self._node(value, hint, keys)
            for each in (hint, *get_args(hint)):
                if isinstance(each, type) and issubclass(each, Section):
                    return self.of_section(value, each, keys)
        if _holds_nodes(value):  # each of its values has a type of its own
            inner = _inner(hint)
            if isinstance(value, Mapping):
                return self._mapping(value, dict.fromkeys(value, inner), keys, own=own)
            types = [self.of(item, inner, (*keys, f"[{at}]"), own=own) for at, item in enumerate(value)]
            return tuple.__class_getitem__(tuple(types))
        return _plain(hint, own=own)

    def _rule(self, keys: Keys) -> Any:
        return next((hint for name, hint in self.rules.hints.items() if _fits(keys, name.split("."))), None)

    def _node(self, node: Mapping[str, Any], hint: Any, keys: Keys) -> Any:
        """What the target's signature says of its keys; anything, where it has no signature or nobody can know."""
        name = node["_target_"]
        if not isinstance(name, str):
            return _refused("the name of a function or class as its _target_")
        try:
            target = named_target(name, key=dotted((*keys, "_target_")))
        except ValueError as error:
            raise SettingsError(str(error)) from error
        wanted = [each for each in (hint, *get_args(hint)) if _is_ours(each)]
        if isinstance(target, type) and wanted and not any(issubclass(target, each) for each in wanted):
            return _refused(" or ".join(each.__name__ for each in wanted), instead=target.__name__)
        return self._of_signature(node, target, name, keys)

    def _of_signature(self, node: Mapping[str, Any], target: Any, name: str, keys: Keys) -> Any:
        """The type of a group whose keys are the parameters of a function or class."""
        try:
            parameters = dict(inspect.signature(target).parameters)
        except (TypeError, ValueError):
            return Any
        self.targets[keys] = name.rpartition(".")[2]
        given = self.rules.at_run_time.get(keys[0], set()) if node.get("_partial_") else set()
        hints = type_hints(target)
        types = {
            key: _or_default(hints.get(key, Any), one.default)
            for key, one in parameters.items()
            if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) and key not in given
        }
        types |= {key: self._rule((*keys, key)) for key in node if self._rule((*keys, key)) is not None}
        positional = len(node.get("_args_", ()))
        required = [key for key in types if key in parameters and parameters[key].default is inspect.Parameter.empty]
        if node.get("_partial_") and keys[0] not in self.rules.at_run_time:
            required = []
        if (mapping := self.rules.mappings.get(name)) and isinstance(node.get(mapping[0]), Mapping):
            types[mapping[0]] = self._mapping(node[mapping[0]], mapping[1](node), (*keys, mapping[0]), required=())
        return self._mapping(
            node,
            types,
            keys,
            required=set(required[positional:]),
            own=name.startswith("autoprune."),
            open_=any(one.kind == one.VAR_KEYWORD for one in parameters.values()),
        )

    def _mapping(
        self,
        value: Mapping[str, Any],
        types: Mapping[str, Any],
        keys: Keys,
        *,
        required: collections.abc.Collection[str] = (),
        own: bool = True,
        open_: bool = False,
    ) -> Any:
        """The type of a mapping with these keys and, unless it is open, no other one."""
        self.names[keys] = list(types)
        inner = {key: self.of(value.get(key), hint, (*keys, key), own=own) for key, hint in types.items()}
        if "_target_" in value:
            inner |= dict.fromkeys(HYDRAS, Any)

        def schema(_: Any, handler: Any) -> core_schema.CoreSchema:
            fields = {
                str(key): core_schema.typed_dict_field(handler.generate_schema(type_), required=key in required)
                for key, type_ in inner.items()
            }
            extra: Literal["allow", "forbid"] = "allow" if open_ else "forbid"
            config = core_schema.CoreConfig(strict=True, allow_inf_nan=False)
            return core_schema.typed_dict_schema(fields, extra_behavior=extra, config=config)

        return Annotated[Any, GetPydanticSchema(schema)]

    def sentences(self, errors: ValidationError, settings: Mapping[str, Any]) -> Iterator[str]:
        """One for each setting that is wrong, which may have several errors: one for each type that it may have."""
        grouped: dict[Keys, list[Any]] = {}
        for error in errors.errors(include_url=False):
            grouped.setdefault(_keys_of(error, settings), []).append(error)
        yield from self._left_over([keys for keys, (one, *_) in grouped.items() if one["type"] == "extra_forbidden"])
        for keys, several in grouped.items():
            if any(len(deeper) > len(keys) and deeper[: len(keys)] == keys for deeper in grouped):
                continue  # the type that this value was meant to be of says what is wrong inside
            match several[0]["type"]:
                case "extra_forbidden":
                    if self._is_left_over(keys):
                        continue
                    if self.parts or difflib.get_close_matches(keys[-1], self.names[()], n=1):
                        yield self._unknown(keys)
                case "missing":
                    yield self._missing(keys)
                case _:
                    yield self._wrong(keys, several)

    def _is_left_over(self, keys: Keys) -> bool:
        """Whether the chosen file sets it for its own target, in whose place the person put another."""
        whose, key = dotted(keys[:-1]), dotted(keys)
        own = any(each == key or each.startswith(f"{key}.") for each in self.overridden)
        return f"{whose}._target_" in self.overridden and keys[:-1] in self.targets and not own

    def _left_over(self, unknown: Sequence[Keys]) -> Iterator[str]:
        for group in dict.fromkeys(keys[:-1] for keys in unknown if self._is_left_over(keys)):
            names = [keys[-1] for keys in unknown if keys[:-1] == group and self._is_left_over(keys)]
            left_out = " ".join(f"'~{dotted((*group, name))}'" for name in names)
            yield (
                f"{dotted(group)}._target_: {self.targets[group]} takes no {', '.join(names)}, set in the file that "
                f"{group[0]}= chooses; leave them out: {left_out}"
            )

    def _wrong(self, keys: Keys, errors: Sequence[Any]) -> str:
        for error in errors:
            if error["type"] == "value_error":  # autoprune's own sentence
                return f"{dotted(keys)}: {error['ctx']['error']}"
        allowed = list(dict.fromkeys(_allowed(error["msg"]) for error in errors)) + ["null"] * (keys in self.optional)
        value = errors[0].get("ctx", {}).get("instead") or json.dumps(errors[0]["input"], default=str)
        return f"{dotted(keys)} must be {' or '.join(allowed)}, got {value}"

    def _unknown(self, keys: Keys) -> str:
        *inside, key = keys
        siblings = self.names.get(tuple(inside), [])
        if close := difflib.get_close_matches(key, siblings, n=1):
            return f"{dotted(keys)} is no setting; did you mean {dotted((*inside, close[0]))}?"
        elsewhere = sorted(((*where, name) for where, names in self.names.items() for name in names), key=len)
        if close := difflib.get_close_matches(key, [name[-1] for name in elsewhere], n=1, cutoff=0.85):
            full = next(name for name in elsewhere if name[-1] == close[0])
            return f"{dotted(keys)} is no setting; did you mean {dotted(full)}?"
        whose = self.targets.get(tuple(inside), dotted(inside) or self.command)
        return f"{dotted(keys)} is no setting; {whose} has {', '.join(siblings) or 'none'}"

    def _missing(self, keys: Keys) -> str:
        name, group = dotted(keys), keys[0]
        if len(keys) == 1:
            return f"{name} is missing; give it, as {name}=VALUE"
        whose = self.targets.get(keys[:-1], dotted(keys[:-1]))
        return (
            f"{name} is missing, without which there is no {whose}; write it into the file that {group}= chooses, or "
            f"on the command line: +{name}=VALUE"
        )


def _plain(hint: Any, *, own: bool) -> Any:
    """The type of a value without any `_target_`: where the hint is an object's, autoprune's refuse it."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return Annotated[_plain(args[0], own=own), *args[1:]]
    if origin in (Union, UnionType):
        return Union[tuple(_plain(each, own=own) for each in args)]  # noqa: UP007 (of types that are only known here)
    if origin in CONTAINERS and args:
        return origin[*(each if each is Ellipsis else _plain(each, own=own) for each in args)]
    if isinstance(hint, type) and issubclass(hint, Section):
        return _refused(f"a group of {', '.join(hint.__annotations__)}")
    if origin is Literal or hint in VALUES or hint in CONTAINERS or hint is None or hint is Any:
        return hint
    return _refused("described by a _target_") if own or origin is collections.abc.Callable else Any


def _refused(allowed: str, *, instead: str | None = None) -> Any:
    """The type that no value has."""

    def refuse(_: Any) -> Any:
        raise PydanticCustomError("described", "{allowed}", {"allowed": allowed, "instead": instead})

    return Annotated[Any, AfterValidator(refuse)]


def type_hints(target: Any) -> dict[str, Any]:
    """Type hints by parameter, without those that cannot be resolved."""
    function = vars(target).get("__init__", target) if isinstance(target, type) else target
    hints: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        with contextlib.suppress(Exception):  # any that an annotation of somebody else's may raise
            alone = SimpleNamespace(__annotations__={name: annotation})
            hints |= get_type_hints(alone, globalns=getattr(function, "__globals__", {}), include_extras=True)
    return hints


def _or_default(hint: Any, default: Any) -> Any:
    return hint | None if default is None and hint is not Any and not isinstance(hint, str) else hint


def _inner(hint: Any) -> Any:
    """The type of what a container of this type holds."""
    for each in (hint, *get_args(hint)):
        if get_origin(each) in CONTAINERS and (args := [arg for arg in get_args(each) if arg is not Ellipsis]):
            return args[-1]
    return Any


def _holds_nodes(value: Any) -> bool:
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any((isinstance(each, Mapping) and "_target_" in each) or _holds_nodes(each) for each in inside)


def _is_ours(hint: Any) -> bool:
    """Whether it is a class of autoprune's that targets can be compared with: no protocol."""
    return isinstance(hint, type) and hint.__module__.startswith("autoprune.") and not getattr(hint, "_is_protocol", 0)


def _fits(keys: Keys, pattern: Sequence[str]) -> bool:
    return len(keys) == len(pattern) and all(part in ("*", key) for key, part in zip(keys, pattern, strict=True))


def _keys_of(error: Any, settings: Any) -> Keys:
    """Where the error is, without the names that pydantic gives the types of a union."""
    keys, value = [], settings
    for step in error["loc"]:
        if isinstance(value, Mapping) and str(step) in (there := {str(key): key for key in value}):
            value = value[there[str(step)]]
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value, step = value[step], f"[{step}]"
        elif error["type"] != "missing" or step is not error["loc"][-1]:
            continue
        keys.append(str(step))
    return tuple(keys)


def _allowed(message: str) -> str:
    """What pydantic says that a value should be, in fewer words."""
    for words, fewer in WORDS.items():
        message = re.sub(words, fewer, message)
    return message
