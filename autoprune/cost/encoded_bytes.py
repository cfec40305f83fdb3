"""What a network takes on the disk when its zeros are left out and its values are coded: predicted from entropies."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autoprune.coding.coded_tensor import TensorBits, write_body
from autoprune.coding.predicted_size import index_bits
from autoprune.cost.model import CostModel, FloatArray, never_falls, plans_along
from autoprune.structure.groups import Group, IntArray, Structure

SAMPLED = 4  # matrices that are really coded
LARGEST = 300_000  # weights of one of them, of which it is the first rows
DENSITIES = (0.1, 0.3, 0.6, 1.0)
RAW_BITS = 32


@dataclass(frozen=True, slots=True, eq=False)
class EncodedBytes:
    """Stored values, and the entropy of which single weights are kept; corrected by matrices that were really coded.

    It may fall where more weights are kept: nearly dense matrices need less of an index.
    """

    stored: CostModel
    """Bits of all values that are not removed."""
    index: tuple[FloatArray | None, ...]
    """Of each group with single weights, the bits that say which are kept [units + 1]; None for others."""
    value_bits: int
    """Of a weight's value before it is coded."""
    rows: tuple[int, ...]
    """Of each group, the weights that go with one unit; 0 without single weights."""
    correction: float
    """Coded ÷ predicted bytes, the median over sampled matrices."""
    error: float
    """The largest |coded ÷ corrected prediction − 1| among them."""
    name: str = "encoded_bytes"
    unit: str = "bytes"

    @property
    def smooth(self) -> bool:
        """Returns True: no unit costs a multiple of its neighbours."""
        return True

    @property
    def never_falls(self) -> bool:
        """Returns whether a unit's values always take more than its index saves."""
        pairs = zip(self.index, self.rows, strict=True)
        grows = all((np.diff(bits) + rows * self.value_bits >= 0).all() for bits, rows in pairs if bits is not None)
        return grows and never_falls(self.stored)

    def __call__(self, kept: IntArray) -> FloatArray:
        kept = np.asarray(kept, np.int64)
        bits = np.asarray(self.stored(kept), np.float64)
        for group, table in enumerate(self.index):
            if table is not None:
                bits = bits + table[kept[..., group]]
        return bits * (self.correction / 8)

    def along(self, kept: IntArray, group: int, levels: IntArray) -> FloatArray:
        return self(plans_along(kept, group, levels))


def encoded_bytes(model: nn.Module, structure: Structure, stored: CostModel, *, value_bits: int) -> EncodedBytes:
    """Returns the cost, corrected by real encodings of at most four matrices.

    Args:
        model: The dense network.
        structure: Its groups.
        stored: Plan → bits of all values that are kept, at `value_bits` for matrices.
        value_bits: 32 for values as they are, fewer for codes of a codebook.
    """
    index = tuple(_index(model, group) for group in structure.groups)
    rows = tuple(
        sum(_weight(model, matrix.layer).size // matrix.size for matrix in group.compared) for group in structure.groups
    )
    ratios = np.array(_sampled_ratios(model, structure, value_bits) or [1.0])
    correction = float(np.median(ratios))
    return EncodedBytes(stored, index, value_bits, rows, correction, float(np.abs(ratios / correction - 1).max()))


def encoding_error(costs: Mapping[str, CostModel]) -> dict[str, dict[str, float]]:
    """Returns what a run records of the prediction: its correction, and the error that is left; nothing without it."""
    cost = costs.get("encoded_bytes")
    return (
        {"encoded_bytes": {"correction": cost.correction, "error": cost.error}}
        if isinstance(cost, EncodedBytes)
        else {}
    )


def _index(model: nn.Module, group: Group) -> FloatArray | None:
    if not group.compared:
        return None
    share = np.arange(group.units + 1) / group.units
    sizes = [_weight(model, matrix.layer).size for matrix in group.compared]
    return np.asarray(sum(index_bits(share * size, size) for size in sizes), np.float64)


def _sampled_ratios(model: nn.Module, structure: Structure, value_bits: int) -> list[float]:
    """Coded ÷ predicted, of matrices evenly among the layers, each at one of several densities."""
    single = [matrix.layer for group in structure.groups for matrix in group.compared]
    layers = single or [layer.name for layer in structure.layers if layer.kind in ("conv", "linear")]
    layers = [name for name in layers if isinstance(getattr(_module(model, name), "weight", None), nn.Parameter)]
    indices = np.linspace(0, len(layers) - 1, SAMPLED).round().astype(int).tolist() if layers else []
    ratios = []
    for number, name in enumerate(layers[index] for index in dict.fromkeys(indices)):
        weight = _weight(model, name).reshape(-1)[:LARGEST]
        density = DENSITIES[number % len(DENSITIES)] if single else 1.0
        weight = _quantized(_largest(weight, density), value_bits)
        predicted = (index_bits(np.count_nonzero(weight), weight.size) + value_bits * np.count_nonzero(weight)) / 8
        if predicted > 0:
            ratios.append(len(write_body(TensorBits("float32", weight.view("<u4")))) / float(predicted))
    return ratios


def _largest(weight: NDArray[np.float32], density: float) -> NDArray[np.float32]:
    """The weights of which the smallest are 0."""
    least = np.quantile(np.abs(weight), 1 - density)
    return np.where(np.abs(weight) >= least, weight, np.float32(0)).astype(np.float32)


def _quantized(weight: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """The weights at 2^bits even steps, zeros left alone; as they are at 32 bits."""
    kept = weight != 0
    if bits >= RAW_BITS or not kept.any():
        return weight
    steps = np.linspace(weight.min(), weight.max(), 2 ** min(bits, 15)).astype(np.float32)
    nearest = np.searchsorted((steps[1:] + steps[:-1]) / 2, weight)
    values = np.where(steps[nearest] == 0, np.float32(1e-12), steps[nearest])
    return np.where(kept, values, np.float32(0)).astype(np.float32)


def _module(model: nn.Module, name: str) -> nn.Module | None:
    return dict(model.named_modules()).get(name)


def _weight(model: nn.Module, name: str) -> NDArray[np.float32]:
    return np.ascontiguousarray(model.get_submodule(name).get_parameter("weight").detach().float().cpu().numpy())
