"""What is sent to other processes: its tensors are in shared memory afterwards, and it is known to arrive."""

import io
import pickle
import resource
import sys
from collections.abc import Iterator, Mapping
from multiprocessing.reduction import ForkingPickler
from typing import Any

SPARE_FILES = 256  # that this process may open besides: connections to workers, its store, its data


def share(value: object, *, name: str) -> None:
    """Moves the value's CPU tensors to shared memory, in place, so that processes it is sent to see these, not copies.

    Raises ValueError where a part of it cannot be sent, and OSError where there are more tensors than files may be open
    or less shared memory than they need.
    """
    storages = _storages(value, name)
    _refuse_too_many(len(storages), name)
    try:
        for storage in storages:
            storage.share_memory_()
    except RuntimeError as error:
        megabytes = sum(storage.nbytes() for storage in storages) / 1e6
        raise OSError(
            f"the tensors of the {name} do not fit into shared memory, {megabytes:.0f} MB ({error}); enlarge /dev/shm, "
            "or judge in this process with evaluation.workers=0"
        ) from error


def _storages(value: object, name: str) -> list[Any]:
    """What holds the numbers of its tensors, each once."""
    inventory = _Inventory()
    try:
        inventory.dump(value)
    except Exception as error:
        path, part = _unsendable(value, name, {id(value)})
        raise ValueError(
            f"{path} = {part!r:.120} cannot be sent to another process ({error}). Functions and classes can where they "
            "are defined at the top of a module; evaluation.workers=0 judges in this process and sends nothing"
        ) from error
    return list(inventory.storages.values())


def _refuse_too_many(storages: int, name: str) -> None:
    """Each needs an open file, here and in each worker, unless torch was told to share by name."""
    torch = sys.modules.get("torch")
    if torch is None or torch.multiprocessing.get_sharing_strategy() != "file_descriptor":
        return
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if storages + SPARE_FILES > allowed != resource.RLIM_INFINITY:
        raise OSError(
            f"the {name} has {storages} tensors, each of which needs an open file to be shared, and this process may "
            f"open {allowed}; raise that, e.g. `ulimit -n {2 * storages + SPARE_FILES}`, or judge in this process with "
            "evaluation.workers=0"
        )


class _Inventory(ForkingPickler):
    """Goes through everything that would be sent, sends nothing, and notes the storages of its tensors."""

    def __init__(self) -> None:
        super().__init__(_Nowhere(), pickle.HIGHEST_PROTOCOL)
        self.storages: dict[int, Any] = {}

    def reducer_override(self, part: Any) -> Any:
        torch = sys.modules.get("torch")  # where it was not imported, there are no tensors
        if torch is not None and isinstance(part, torch.UntypedStorage) and part.device.type == "cpu":
            if part.nbytes():
                self.storages[part.data_ptr()] = part
            return int, ()
        return NotImplemented


class _Nowhere(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        return len(content)


def _unsendable(value: object, path: str, seen: set[int]) -> tuple[str, object]:
    """The smallest part of the value that cannot be sent, and where it is."""
    for name, part in _parts(value):
        if id(part) not in seen and not _can_be_sent(part):
            seen.add(id(part))
            return _unsendable(part, path + name, seen)
    return path, value


def _can_be_sent(part: object) -> bool:
    try:
        _Inventory().dump(part)
    except Exception:
        return False
    return True


def _parts(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif not isinstance(value, type) and not callable(getattr(value, "__code__", None)):
        slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        names = [*getattr(value, "__dict__", {}), *(name for name in slots if hasattr(value, name))]
        yield from ((f".{name}", getattr(value, name)) for name in names)
