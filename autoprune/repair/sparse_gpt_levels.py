"""SparseGPT's weights for any level: as weights of a row go, its others are set to what is then best.

Frantar and Alistarh, arXiv 2301.00774. It differs in what is compared: in whole rows, each row keeps as many weights as
the plan says, where the paper's code shares them out within 128 columns of all rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from autoprune.identity import identity_of
from autoprune.importance.gram import input_grams, inverse_factor
from autoprune.importance.layer_inputs import first_readers
from autoprune.ranges import Count, FinitePositive, Natural, check_fields
from autoprune.repair.weight_levels import LevelFiles, check_level, compared, dense_weights, read_tensor, write_tensor
from autoprune.source_digest import code_digest
from autoprune.structure.groups import Comparison, Structure
from autoprune.task.task import Forward, Role

FACTOR = ".factor.safetensors"


@dataclass(frozen=True, slots=True)
class SparseGPT:
    """How the weights that stay beside removed single ones are solved for (arXiv 2301.00774)."""

    damping: FinitePositive
    """What is added to the diagonal of the inputs' second moments, relative to its mean."""
    block: Count
    """Columns that are settled before what they cost is passed on to all later ones; of speed only, but that single
    weights of whole rows are chosen once per block."""
    cap_bytes: Natural
    """Of the files of levels that are kept; one factor for each distinct input, of 4 · inputs² bytes, comes on top."""

    def __post_init__(self) -> None:
        check_fields(self, "repair.sparse_gpt")


class SparseGPTLevels:
    """`Levels` (evaluation/levels.py) that are solved for when they are first asked for, and kept in files.

    weights: layer → dense [outputs, inputs]. factors: layer → file of its inputs' inverse factor.
    """

    def __init__(
        self,
        weights: dict[str, Tensor],
        matrices: dict[str, Comparison],
        factors: dict[str, Path],
        *,
        settings: SparseGPT,
        files: LevelFiles,
        subfolder: str,
    ) -> None:
        self._weights, self._matrices, self._factors = weights, matrices, factors
        self._settings, self._files, self._subfolder = settings, files, subfolder

    def __call__(self, layer: str, kept: int) -> Tensor:
        check_level(self._matrices, layer, kept)
        weight, size = self._weights[layer], self._matrices[layer].size
        if kept == size:
            return weight

        def make() -> Tensor:
            return solve(weight, self._factor(layer), size=size, kept=kept, block=self._settings.block)

        return self._files.get(self._subfolder, f"{layer}-{kept}", make).to(weight.device)

    def _factor(self, layer: str) -> Tensor:
        factor = read_tensor(self._factors[layer])
        if factor is None:
            raise FileNotFoundError(
                f"{self._factors[layer]}, made of the inputs of {layer!r}, is gone; start again, and it is made again"
            )
        return factor.to(self._weights[layer].device)


@torch.no_grad()
def sparse_gpt_levels(
    model: nn.Module, structure: Structure, role: Role, *, forward: Forward, settings: SparseGPT, folder: Path
) -> SparseGPTLevels:
    """The levels of all matrices that lose single weights, from what they read on the calibration role.

    Files are below `folder`, in a subfolder of their own for each model, role and setting; what an earlier process left
    there is used. The samples are run once, in float32, and only where a factor is missing.

    Args:
        model: The dense network, in eval mode.
        structure: The network's groups and layers.
        role: The samples that are read.
        forward: (network, inputs) → outputs: how the network is called.
        settings: How levels are solved for.
        folder: Where the files lie.
    """
    matrices, weights = compared(structure), dense_weights(model, structure)
    described = (
        code_digest(),
        model,
        role.digest,
        forward,
        settings.damping,
        settings.block,
        sorted(map(repr, matrices.values())),
    )
    subfolder = identity_of(described)
    first = first_readers(model, tuple(matrices), role, forward=forward)
    paths = {name: folder / subfolder / f"{name}{FACTOR}" for name in dict.fromkeys(first.values())}
    missing = tuple(name for name, path in paths.items() if read_tensor(path) is None)
    grams = input_grams(model, missing, role, forward=forward) if missing else {}
    for name in missing:
        write_tensor(paths[name], inverse_factor(grams.pop(name), damping=settings.damping).float())
    files = LevelFiles(folder, cap_bytes=settings.cap_bytes)
    factors = {name: paths[first[name]] for name in matrices}
    return SparseGPTLevels(weights, matrices, factors, settings=settings, files=files, subfolder=subfolder)


@torch.no_grad()
def solve(weight: Tensor, factor: Tensor, *, size: int, kept: int, block: Count) -> Tensor:
    """The weights [outputs, inputs] of which each comparison of `size` consecutive inputs keeps `kept`.

    Columns are settled from the first to the last. A weight that goes costs (w / U[j, j])² at its turn, by which those
    that go are chosen, and later columns are set to what is best after all that is settled. Choices are made where a
    comparison starts, and at every block inside one. What is settled is not looked at again, so where a row keeps very
    few weights a mask can lose less.

    Args:
        weight: The matrix [outputs, inputs].
        factor: The upper triangular U of `inverse_factor` [inputs, inputs].
        size: Consecutive inputs that are compared with each other.
        kept: Units, or weights of each comparison, that stay.
        block: Columns that are settled before later ones are changed, at least 1.
    """
    columns = weight.T.clone(memory_format=torch.contiguous_format)  # [inputs, outputs]: a column is one stretch
    pivots = factor.diagonal()
    stays = torch.zeros_like(columns, dtype=torch.bool)
    for start, stop in _blocks(len(columns), size, block):
        costs = torch.empty_like(columns[start:stop])
        for j in range(start, stop):
            if j == start or j % size == 0:
                end = (j // size + 1) * size  # of the comparison
                quota = kept - stays[end - size : j].sum(dim=0)
                stays[j : min(stop, end)] = _best(columns[j:end] / pivots[j:end, None], quota)[: stop - j]
            cost = (columns[j] / pivots[j]).masked_fill_(stays[j], 0)
            columns[j + 1 : stop].addr_(factor[j, j + 1 : stop], cost, alpha=-1)
            costs[j - start] = cost
        columns[stop:].addmm_(factor[start:stop, stop:].T, costs, alpha=-1)
    return (columns * stays).T.contiguous()


def _best(costs: Tensor, quota: Tensor) -> Tensor:
    """Which of the rows [rows, outputs] are among each column's `quota` [outputs] largest; earlier ones win ties."""
    order = costs.abs().argsort(dim=0, descending=True, stable=True)
    position = torch.arange(len(costs), device=costs.device)[:, None].expand_as(order)
    return torch.empty_like(order).scatter_(0, order, position) < quota


def _blocks(inputs: int, size: int, block: int) -> Iterator[tuple[int, int]]:
    """Stretches of columns of about `block`: several whole comparisons, or parts of one."""
    step = max(1, block // size) * size if size <= block else block
    for begin in range(0, inputs, max(step, size)):
        end = min(inputs, begin + max(step, size))
        for start in range(begin, end, step):
            yield start, min(end, start + step)
