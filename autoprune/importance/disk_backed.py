"""Scores that are large are kept in a file: those of single weights take as much memory as the network itself."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from autoprune.importance.criterion import Scores
from autoprune.stored_tensor import LARGE_BYTES, TensorFile


class DiskBackedScores(Mapping[str, Tensor]):
    """The same scores, float32, each read from a temporary file when it is asked for; the file goes with the object."""

    def __init__(self, scores: Scores) -> None:
        file = TensorFile()
        self._stored = {name: file.write(values.to(torch.float32)) for name, values in scores.items()}

    def __getitem__(self, name: str) -> Tensor:
        return self._stored[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def disk_backed(scores: Scores) -> Scores:
    """Where they are large, a mapping that reads them from a file."""
    large = sum(values.nbytes for values in scores.values()) > LARGE_BYTES
    return DiskBackedScores(scores) if large else scores
