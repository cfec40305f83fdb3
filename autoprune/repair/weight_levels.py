"""What weights a matrix has of which only each comparison's best are kept; and a folder that keeps such matrices."""

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from autoprune.files import PARTIAL, atomic_write
from autoprune.structure.edit import Ranking
from autoprune.structure.groups import Comparison, Structure

SUFFIX = ".level.safetensors"
PARTIAL_S = 600  # a file that another process writes is done by then, or never

_log = logging.getLogger(__name__)


class WeightLevels(Protocol):
    """The weights of a matrix of which k weights of each comparison are kept. It can be sent to another process."""

    def __call__(self, layer: str, kept: int) -> Tensor:
        """[outputs, inputs], float32, zero where a weight is gone. All kept are the dense weights themselves.

        What is returned may be kept elsewhere too, so clone it before changing it. Raises KeyError where no weights of
        the layer are compared, and ValueError where `kept` is not in [0, size of a comparison].
        """
        ...


class RankedLevels:
    """The weights whose place in the ranking is below `kept`, as they are; nothing is stored but the ranking."""

    def __init__(self, model: nn.Module, structure: Structure, ranking: Ranking) -> None:
        self._matrices = compared(structure)
        self._weights = dense_weights(model, structure)
        self._places = {
            matrix.layer: ranking[group.name].to(self._weights[matrix.layer].device)
            for group in structure.groups
            for matrix in group.compared
        }

    def __call__(self, layer: str, kept: int) -> Tensor:
        check_level(self._matrices, layer, kept)
        weight = self._weights[layer]
        return weight if kept == self._matrices[layer].size else weight.where(self._places[layer] < kept, 0.0)


class LevelFiles:
    """A folder of matrices, each a safetensors file that is read where it lies; what is least in use goes first.

    folder: all its subfolders count together. cap_bytes: of all files of levels below it. Several processes may use it
    at once: a file appears whole or not at all, and one that is gone or cut short is made again.

    >>> LevelFiles(Path("store/levels"), cap_bytes=2**32).get("5f1c", "layers.0.mlp.up_proj-288", make)
    """

    def __init__(self, folder: Path, *, cap_bytes: int) -> None:
        self.folder, self.cap_bytes = folder, cap_bytes
        self._warned: set[str] = set()

    def get(self, subfolder: str, name: str, make: Callable[[], Tensor]) -> Tensor:
        """The matrix of that name; what `make` returns where there is none yet.

        Args:
            subfolder: Of the group, in the folder.
            name: What it is called.
            make: Computes it where there is no file.
        """
        path = self.folder / subfolder / f"{name}{SUFFIX}"
        stored = read_tensor(path)
        if stored is not None:
            with contextlib.suppress(OSError):  # another process may remove it, and a folder may be read-only
                os.utime(path)
            return stored
        made = make()
        size = made.numel() * made.element_size()
        if size > self.cap_bytes:
            self._tell("cap", f"a level of {size} bytes is more than cap_bytes={self.cap_bytes}: it is not kept")
            return made
        try:
            self._make_room(size)
            write_tensor(path, made)
        except OSError as error:
            self._tell("write", f"levels are not kept below {self.folder} and will be computed each time: {error}")
        return made

    def _make_room(self, size: int) -> None:
        files = []
        for path in self.folder.rglob("*"):
            with contextlib.suppress(OSError):
                status = path.stat()
                if path.name.endswith(SUFFIX) or _is_abandoned(path, status.st_mtime):
                    files.append((status.st_mtime, status.st_size, path))
        total = sum(used for _, used, _ in files)
        for _, used, path in sorted(files):
            if total + size <= self.cap_bytes:
                return
            self._tell(
                "evict",
                f"the levels below {self.folder} reach cap_bytes={self.cap_bytes}: those that were not used for the "
                "longest time are removed, and computed again when needed; a higher cap or coarser levels avoid that",
            )
            path.unlink(missing_ok=True)
            total -= used

    def _tell(self, kind: str, message: str) -> None:
        """Says it once, not at every level."""
        if kind not in self._warned:
            self._warned.add(kind)
            _log.warning(message)


def compared(structure: Structure) -> dict[str, Comparison]:
    """Layer → how its single weights are compared."""
    return {matrix.layer: matrix for group in structure.groups for matrix in group.compared}


def dense_weights(model: nn.Module, structure: Structure) -> dict[str, Tensor]:
    """Layer → the matrix that loses single weights [outputs, inputs · kernel], float32; the model's own if it is that.

    Args:
        model: The dense network, in eval mode.
        structure: The network's groups and layers.
    """
    weights = {name: model.get_submodule(name).get_parameter("weight") for name in compared(structure)}
    return {name: weight.detach().float().flatten(1) for name, weight in weights.items()}


def check_level(matrices: dict[str, Comparison], layer: str, kept: int) -> None:
    if layer not in matrices:
        raise KeyError(f"no single weights of {layer!r} are compared; those of these are: {sorted(matrices)}")
    if not 0 <= kept <= matrices[layer].size:
        raise ValueError(f"{layer!r} keeps 0 to {matrices[layer].size} weights of each comparison, got {kept}")


def read_tensor(path: Path) -> Tensor | None:
    """The tensor in a file, mapped into memory. None without one; None, and it says so, where the file is damaged."""
    for attempt in range(3):
        try:
            with safe_open(str(path), framework="pt") as file:
                tensor: Tensor = file.get_tensor("weight")
            return tensor
        except (SafetensorError, OSError, RuntimeError) as error:
            if not path.exists():
                return None
            if attempt == 2:  # before, another process may have put it there meanwhile
                _log.warning("%s is damaged (%s) and is made again", path, error)
                path.unlink(missing_ok=True)
    return None


def write_tensor(path: Path, tensor: Tensor) -> None:
    """The file holds the tensor, whole, whatever happens meanwhile.

    Args:
        path: The file.
        tensor: A tensor of the layer.
    """
    with atomic_write(path) as partial:
        try:
            save_file({"weight": tensor.contiguous()}, partial)
        except SafetensorError as error:  # a full disk, among others
            raise OSError(str(error)) from error


def _is_abandoned(path: Path, modified: float) -> bool:
    return path.name.endswith(PARTIAL) and time.time() - modified > PARTIAL_S
