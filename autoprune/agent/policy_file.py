"""policy.json: what has to be known to rebuild a policy's network, sealed, so that an edit is noticed."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

SCHEMA = 3  # raised when a reader of the old files would misread the new ones
OBSERVATION_VERSION = 1  # raised when a feature of an old name means something else
WEIGHTS, RECORD, CARD = "policy.safetensors", "policy.json", "README.md"
FILES = (RECORD, WEIGHTS, CARD)  # all that a bundle is

# What could run when it is opened or imported, or what others unpickle; a bundle has no use for it.
RUNNABLE = (
    *(".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".bin", ".npy", ".npz", ".zip"),  # may hold pickles
    *(".py", ".pyc", ".pyd", ".whl", ".so", ".dll", ".dylib", ".sh", ".exe"),
)
ENTRIES: Mapping[str, type] = {
    "algorithm": str,
    "architecture": dict,
    "observation": dict,
    "action": dict,
    "training": dict,
    "sha256": dict,
}
LARGEST = 4096  # number in an architecture: no file may ask for all of the memory
MOST_NUMBERS = 10_000_000  # in an observation or an action

ANEW = "get the policy again from where it came from"


def sealed(record: Mapping[str, Any], *, weights: bytes) -> dict[str, Any]:
    """The record with the SHA-256 of the weights' file and of itself.

    Args:
        record: What was written, in JSON's values.
        weights: The weights' file.
    """
    digests = {"weights": digest(weights)}
    return {**record, "sha256": {**digests, "record": _digest_of({**record, "sha256": digests})}}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_record(folder: Path) -> dict[str, Any]:
    """policy.json of a folder in which nothing could run. Raises ValueError that says what is wrong with it."""
    path = folder / RECORD
    if not path.is_file():
        raise ValueError(f"{folder} holds no policy: there is no {RECORD} in it")
    _check_files(folder)
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}; {ANEW}") from error
    if not isinstance(record, dict) or "schema" not in record:
        raise ValueError(f"{path} is no policy's record, which says its schema; {ANEW}")
    _check_version(path, record, "schema", SCHEMA)
    _check_seal(path, record)
    _check_version(path, record, "observation_version", OBSERVATION_VERSION)
    for name, kind in ENTRIES.items():
        if not isinstance(record.get(name), kind):
            problem = "is missing" if name not in record else f"must be of type {kind.__name__}, got {record[name]!r}"
            raise ValueError(f"{path} does not describe a policy: {name!r} {problem}; {ANEW}")
    _check_architecture(path, record["architecture"])
    return dict(record)


def is_transferable(architecture: Mapping[str, Any]) -> bool:
    """Whether a policy of this architecture reads any number of groups."""
    return "encoder" in architecture["options"]


def space_as_json(space: spaces.Space[Any]) -> dict[str, Any]:
    """A box or discrete levels as plain values. Raises ValueError for any other space."""
    match space:
        case spaces.Discrete():
            return {"kind": "discrete", "n": int(space.n)}
        case spaces.Box() if space.is_bounded():
            alike = all(bounds.size and (bounds == bounds.flat[0]).all() for bounds in (space.low, space.high))
            low, high = ((bounds.flat[0].item() if alike else bounds.tolist()) for bounds in (space.low, space.high))
            return {"kind": "box", "low": low, "high": high, "shape": list(space.shape)}
        case spaces.Box():
            return {"kind": "unbounded", "shape": list(space.shape)}
    raise ValueError(f"a policy over {space} cannot be saved; only boxes and discrete levels can")


def space_from_json(record: Mapping[str, Any]) -> gymnasium.Space[Any]:
    """The space that was written. Raises ValueError or KeyError where it can't be one."""
    match record["kind"]:
        case "discrete":
            (levels,) = _sizes([record["n"]])
            return spaces.Discrete(levels)
        case "box":
            shape = _sizes(record["shape"])
            low, high = (np.broadcast_to(np.array(record[side], np.float32), shape) for side in ("low", "high"))
            return spaces.Box(low, high, shape, np.float32)
        case "unbounded":
            return spaces.Box(-np.inf, np.inf, _sizes(record["shape"]), np.float32)
    raise ValueError(f"unknown space {record['kind']!r}")


def _check_files(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in RUNNABLE:
            raise ValueError(
                f"{folder} is not loaded, because {path.relative_to(folder)} in it could be a pickle or code: a policy "
                f"is {RECORD}, {WEIGHTS} and {CARD}, and nothing that could run. Delete that file if you trust the rest"
            )


def _check_version(path: Path, record: Any, name: str, read: int) -> None:
    version = record.get(name) if isinstance(record, dict) else None
    if version != read or isinstance(version, bool):
        name = name.replace("_", " ")
        raise ValueError(f"{path} has {name} {version!r}, this version reads {read}: use the version that wrote it")


def _check_architecture(path: Path, architecture: Mapping[str, Any]) -> None:
    for name, kind in {"hidden": list, "options": dict, "activation": str}.items():
        if not isinstance(architecture.get(name), kind):
            problem = f"{name!r} of its architecture is missing or not of type {kind.__name__}"
            raise ValueError(f"{path} does not describe a policy: {problem}; {ANEW}")
    for number in _numbers(architecture):
        if not abs(number) <= LARGEST:
            problem = f"numbers of an architecture must be at most {LARGEST}, got {number}"
            raise ValueError(f"{path} does not describe a policy: {problem}")


def _check_seal(path: Path, record: dict[str, Any]) -> None:
    digests = record.get("sha256")
    if not isinstance(digests, dict) or not {"weights", "record"} <= digests.keys():
        raise ValueError(f"{path} does not describe a policy: its 'sha256' of weights and record is missing; {ANEW}")
    rest = {name: value for name, value in digests.items() if name != "record"}
    if _digest_of({**record, "sha256": rest}) != digests["record"]:
        raise ValueError(f"{path} was changed after it was saved: its SHA-256 is another than it says; {ANEW}")


def _digest_of(record: Mapping[str, Any]) -> str:
    return digest(json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number that a policy has")


def _sizes(shape: Any) -> tuple[int, ...]:
    whole = isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape)
    if not whole or math.prod(shape) > MOST_NUMBERS:
        raise ValueError(f"sizes of a space must be whole, positive and at most {MOST_NUMBERS} together, got {shape!r}")
    return tuple(shape)


def _numbers(values: Any) -> Iterator[float]:
    if isinstance(values, dict):
        values = list(values.values())
    for value in values:
        if isinstance(value, dict | list):
            yield from _numbers(value)
        elif isinstance(value, int | float):
            yield value
