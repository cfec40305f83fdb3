"""What a network takes on the disk when its zeros are left out and its values are coded: predicted from entropies."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autoprune.coding.apz_file import HEADER
from autoprune.coding.coded_tensor import TensorBits, write_body
from autoprune.coding.predicted_size import HEAD_BYTES, RECORD_BYTES, TABLE_BITS, index_bits
from autoprune.coding.relative_positions import coded_gaps
from autoprune.cost.coded_matrices import SHARES, CodedMatrices, Entropies
from autoprune.cost.model import CostModel, FloatArray, changed, never_falls, plans_along
from autoprune.cost.observed import NetworkCosts
from autoprune.quantize.codebook import centroids_of
from autoprune.quantize.shared_weights import ROUNDS, fitted, norm_statistics, quantizable, shared_values
from autoprune.structure.code_bits import RAW_BITS
from autoprune.structure.groups import IntArray, Structure

SAMPLED = 4  # matrices that are really coded
LARGEST = 300_000  # weights of a matrix that are looked at: rows at equal distances
WIDE = 8  # bits of a gap, which suit inputs that matter very differently
FEWEST = 4_000  # weights, below which headers and tables would be all that is compared
DENSITIES = (0.1, 0.3, 0.6, 1.0)
HALF_BITS = 16  # of a parameter that is no matrix, where matrices have codes

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedBytes:
    """Entropies of values and of which single weights are kept, corrected by matrices that were really coded.

    It may fall where more weights are kept: nearly dense matrices need less of an index.
    """

    others: CostModel
    """Bits of all values outside of matrices."""
    matrices: CodedMatrices
    """Bits of every matrix, by what its groups keep."""
    overhead: int
    """Bytes of the file's header, and of every tensor's name and shape."""
    correction: float
    """Coded ÷ predicted bytes, the median over sampled matrices."""
    error: float
    """The largest |coded ÷ corrected prediction − 1| among them."""
    name: str = "encoded_bytes"
    """What budgets and reports call the cost."""
    unit: str = "bytes"
    """What the cost is counted in."""

    @property
    def smooth(self) -> bool:
        """Returns True: no unit costs a multiple of its neighbours."""
        return True

    @property
    def never_falls(self) -> bool:
        """Returns whether a unit's values always take more than its index saves."""
        return self.matrices.never_fall and never_falls(self.others)

    def __call__(self, kept: IntArray) -> FloatArray:
        kept = np.asarray(kept, np.int64)
        return self._bytes(np.asarray(self.others(kept)), self.matrices(kept).sum(axis=-1))

    def along(self, kept: IntArray, group: int, levels: IntArray) -> FloatArray:
        kept, rows = np.asarray(kept, np.int64), self.matrices.touched[group]
        same = self.matrices(kept).sum(axis=-1) - self.matrices(kept, rows).sum(axis=-1)
        own = self.matrices(plans_along(kept, group, levels), rows).sum(axis=-1)
        return self._bytes(self.others.along(kept, group, levels), same[..., None] + own)

    def changed(self, kept: IntArray, levels: IntArray) -> FloatArray:
        kept, levels = np.asarray(kept, np.int64), np.asarray(levels, np.int64)
        if kept.ndim > 1:
            return np.stack([self.changed(plan, to) for plan, to in zip(kept, levels, strict=True)])
        return self._bytes(changed(self.others, kept, levels), self.matrices.changed(kept, levels))

    def _bytes(self, others: FloatArray, coded: FloatArray) -> FloatArray:
        return np.asarray((others + self.correction * coded) / 8 + self.overhead, np.float64)


def encoded_bytes(model: nn.Module, structure: Structure, observed: NetworkCosts, *, value_bits: int) -> EncodedBytes:
    """Returns the cost, corrected by real encodings of at most four matrices.

    Args:
        model: The dense network.
        structure: Its groups; where some decide on bits, the other matrices' values stay as they are.
        observed: Sizes of its tensors under any plan.
        value_bits: 32 for values as they are, fewer for codes of a codebook.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    deciding = {layer: index for index, group in enumerate(structure.groups) for layer in group.coded}
    comparing = {
        matrix.layer: (index, matrix.size) for index, group in enumerate(structure.groups) for matrix in group.compared
    }
    layers = {
        layer: names[id(module.weight)] for layer, module in quantizable(model).items() if id(module.weight) in names
    }
    widths = (RAW_BITS,) if deciding else (value_bits,)
    choices = tuple(
        sorted({*widths, *(bits for index in deciding.values() for bits in structure.groups[index].levels)})
    )
    measured = []
    for layer in layers:
        own = choices if layer in deciding else widths
        shares = SHARES if layer in comparing else SHARES[-1:]
        bits = _entropies(_weight(model, layer), comparing.get(layer, (0, None))[1], shares, own)
        rows = [[bits[share].get(width, (0.0, 0.0)) for width in choices] for share in shares]
        measured.append(rows * (len(SHARES) // len(rows)))
    ratios = np.array([_index_ratios(_weight(model, layer), comparing.get(layer, (0, None))[1]) for layer in layers])
    values, tables = np.array(measured).reshape(len(layers), len(SHARES), len(choices), 2).transpose(3, 0, 1, 2)
    matrices = CodedMatrices.of(
        [observed.entries(name) for name in layers.values()],
        structure,
        density=[comparing.get(layer, (-1, 0))[0] for layer in layers],
        bits=[deciding.get(layer, -1) for layer in layers],
        choices=choices,
        entropies=Entropies(values, tables, ratios.reshape(len(layers), len(SHARES))),
    )
    others = observed.stored_bits(
        bits_per_entry=HALF_BITS if deciding or value_bits < RAW_BITS else RAW_BITS,
        buffers=set(norm_statistics(model)),
        without=set(layers.values()),
    )
    indices = dict(zip(layers, ratios, strict=True))
    coded = np.array(_sampled_ratios(model, indices, comparing, widths if not deciding else choices) or [1.0])
    correction = float(np.median(coded))
    overhead = HEADER.size + RECORD_BYTES + sum(len(name) + HEAD_BYTES for name in model.state_dict())
    error = float(np.abs(coded / correction - 1).max())
    return EncodedBytes(others, matrices, overhead, correction, error)


def encoding_error(costs: Mapping[str, CostModel]) -> dict[str, dict[str, float]]:
    """Returns what a run records of the prediction: its correction, and the error that is left; nothing without it."""
    cost = costs.get("encoded_bytes")
    return (
        {"encoded_bytes": {"correction": cost.correction, "error": cost.error}}
        if isinstance(cost, EncodedBytes)
        else {}
    )


def _entropies(
    weight: Matrix, size: int | None, shares: Sequence[float], widths: Sequence[int]
) -> dict[float, dict[int, tuple[float, float]]]:
    """Share of the weights that is kept → bits → (bits of a coded value, bits of the table).

    The largest of each comparison are kept, whatever criterion will say.
    """
    rows = _some_rows(weight)
    # Centroids begin evenly between the extremes of the whole matrix: without its few largest weights, codes would seem
    # to be used more evenly than they are.
    extremes = [] if rows.size == weight.size else [float(weight.min()), float(weight.max())]
    if size is not None:
        rows = rows.reshape(-1, size)
        rows = np.take_along_axis(rows, np.argsort(-np.abs(rows), axis=1), axis=1)
    bits: dict[float, dict[int, tuple[float, float]]] = {}
    for share in shares:
        kept = rows[:, : max(1, round(share * rows.shape[1]))].reshape(-1)
        ordered = fitted(np.append(kept[kept != 0], extremes))
        bits[share] = {width: _value_bits(ordered, width) for width in widths} if len(ordered) else {}
    return bits


def _index_ratios(weight: Matrix, size: int | None) -> FloatArray:
    """Bits of coded gaps ÷ those of an index where every choice is as likely, for every share of weights that is kept.

    Gaps take fewer where some inputs matter more than others. Files list entries output by output, or input by input.
    """
    ratios = np.ones(len(SHARES))
    if size is None:
        return ratios
    places = _places(_some_rows(weight), size)
    orders = places.reshape(-1), np.ascontiguousarray(places.T).reshape(-1)
    for number, share in enumerate(SHARES[:-1]):
        kept, narrow = max(1, round(share * size)), math.ceil(math.log2(1 / share)) + 2
        positions = [np.flatnonzero(order < kept) for order in orders]
        bits = min(coded_gaps(each, width) for each in positions for width in {narrow, WIDE})
        ratios[number] = min(1.0, bits / float(index_bits(places.size * kept / size, places.size)))
    return ratios


def _places(rows: Matrix, size: int) -> IntArray:
    """[rows, columns] each weight's place in its comparison, the largest first."""
    order = np.argsort(-np.abs(rows.reshape(-1, size)), axis=1)
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.arange(size)[None], axis=1)
    return places.reshape(rows.shape)


def _some_rows(weight: Matrix) -> Matrix:
    """Rows at equal distances, of LARGEST weights at most, one at least."""
    most = max(1, LARGEST // max(1, weight.shape[1]))
    if most >= len(weight):
        return weight
    return np.ascontiguousarray(weight[np.linspace(0, len(weight) - 1, most).round().astype(np.int64)])


def _value_bits(ordered: NDArray[np.float64], width: int) -> tuple[float, float]:
    """Bits of a coded value, and of the table of values."""
    if width >= RAW_BITS:
        return float(RAW_BITS), 0.0
    _, counts = centroids_of(ordered, width, rounds=ROUNDS)
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum()), float(len(counts) * (HALF_BITS + TABLE_BITS))


def _sampled_ratios(
    model: nn.Module,
    index_ratios: Mapping[str, FloatArray],
    comparing: Mapping[str, tuple[int, int]],
    widths: Sequence[int],
) -> list[float]:
    """Coded ÷ predicted, of matrices evenly among the layers, each at one of several densities and bits."""
    sizes = {name: _weight(model, name) for name in index_ratios}
    large = [name for name in index_ratios if sizes[name].size >= FEWEST] or list(index_ratios)
    indices = np.linspace(0, len(large) - 1, SAMPLED).round().astype(int).tolist() if large else []
    ratios: list[float] = []
    for number, name in enumerate(large[index] for index in dict.fromkeys(indices)):
        weight, size = _some_rows(sizes[name]), comparing.get(name, (0, 1))[1]
        density = DENSITIES[number % len(DENSITIES)] if name in comparing else 1.0
        width = widths[number % len(widths)]
        kept = np.where(_places(weight, size) < max(1, round(density * size)), weight, np.float32(0))
        ordered = fitted(kept[kept != 0])
        if not len(ordered):
            continue
        value, table = _value_bits(ordered, width)
        count = np.count_nonzero(kept)
        ratio = float(np.interp(density, SHARES, index_ratios[name]))
        predicted = (ratio * float(index_bits(count, kept.size)) + value * count + table) / 8 + HEAD_BYTES
        written = kept if width >= RAW_BITS else shared_values(torch.from_numpy(kept), width).numpy()
        ratios.append((len(write_body(TensorBits("float32", written.view("<u4")))) + HEAD_BYTES) / predicted)
    return ratios


def _weight(model: nn.Module, name: str) -> Matrix:
    """[outputs, inputs · kernel]"""
    weight = model.get_submodule(name).get_parameter("weight").detach().float().cpu()
    return np.ascontiguousarray(weight.flatten(1).numpy())
