"""Scores that are large are kept in a file: those of single weights take as much memory as the network itself."""

import tempfile
import weakref
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from autoprune.importance.criterion import Scores

LARGE_BYTES = 64 * 2**20  # from which on they are not kept in memory


class DiskBackedScores(Mapping[str, Tensor]):
    """The same scores, float32, each read from a temporary file when it is asked for; the file goes with the object."""

    def __init__(self, scores: Scores) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the scores do
        weakref.finalize(self, self._file.close)
        self._places: dict[str, tuple[int, torch.Size]] = {}
        for name, values in scores.items():
            self._places[name] = self._file.tell(), values.shape
            self._file.write(values.detach().cpu().to(torch.float32).contiguous().numpy().data)

    def __getitem__(self, name: str) -> Tensor:
        start, shape = self._places[name]
        self._file.seek(start)
        return torch.from_numpy(np.frombuffer(bytearray(self._file.read(4 * shape.numel())), np.float32)).view(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def disk_backed(scores: Scores) -> Scores:
    """Where they are large, a mapping that reads them from a file."""
    large = sum(values.nbytes for values in scores.values()) > LARGE_BYTES
    return DiskBackedScores(scores) if large else scores
