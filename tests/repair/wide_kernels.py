"""One-dimensional convolutions whose kernels are wider than its layers: small weights, large Gram matrices."""

import resource
import sys
from pathlib import Path

import torch
from torch import nn

from autoprune.repair.least_squares import LeastSquares, Reconstruction, reconstruct
from autoprune.structure.graph import find_structure
from autoprune.task.task import Role
from tests.models import random_ranking


def wide_kernels(first: int, *, kernel: int) -> nn.Sequential:
    """Reads samples of one channel [N, 1, 1024]; its second layer reads `first` channels at `kernel` places."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(1, first, 64, stride=4, padding=32), nn.ReLU(), nn.BatchNorm1d(first), nn.MaxPool1d(2),
        nn.Conv1d(first, 16, kernel, padding=kernel // 2), nn.ReLU(), nn.BatchNorm1d(16), nn.MaxPool1d(4),
        nn.Conv1d(16, 24, kernel, padding=kernel // 2), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(24, 10),
    ).eval()  # fmt: skip


def solved(network: nn.Module, *, only_errors: bool = False) -> Reconstruction:
    """Least squares of the network on 64 random samples."""
    structure = find_structure(network, torch.randn(1, 1, 1024))
    return reconstruct(
        network,
        structure,
        random_ranking(structure, seed=0),
        Role(torch.randn(64, 1, 1024, generator=torch.Generator().manual_seed(0))),
        settings=LeastSquares(ridge=1e-3, rows=4096),
        centred=frozenset(),
        generator=torch.Generator().manual_seed(0),
        only_errors=only_errors,
    )


def peak_bytes() -> int:
    """The most memory that this process has had, what its parent held when it was started left out where one can."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * next(
            int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM:")
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    solved(wide_kernels(8, kernel=4))  # what torch itself takes
    before = peak_bytes()
    layers = solved(wide_kernels(int(sys.argv[1]), kernel=int(sys.argv[2]))).layers
    print(peak_bytes() - before, *layers)
