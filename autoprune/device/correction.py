"""What a whole network takes beyond its layers: a few factors, fitted to a handful of its plans."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.device.fused_layer import FusedLayer
from autoprune.device.grid import ALIGNED, BLOCK
from autoprune.device.table_latency import TableLatency
from autoprune.device.widths import Widths
from autoprune.structure.groups import IntArray

FEWEST = 8  # plans that factors are fitted to
RIDGE = 1e-3  # pulls every factor to what it is where layers just add up
TERMS = ("constant", "dense layers", "depthwise", "weights", "blocked inputs", "blocked outputs")


@dataclass(frozen=True, slots=True)
class Correction:
    """latency = constant + Σ over layers of (factor of its kind) · its latency + the other terms.

    weights: ms per weight, as a network's lie in slower memory than a layer's that is run again and again. blocked
    inputs and outputs: ms per activation, of which a runtime that computes blocks of channels need not change the
    layout between two layers, but has to around a layer alone. factors [terms] in the order of TERMS.
    """

    factors: tuple[float, ...]

    def applied(self, widths: Widths, tables: Sequence[FloatArray]) -> TableLatency:
        """The layers' tables [ms] as a cost model that is corrected."""
        corrected = []
        for layer, table in zip(widths.layers, tables, strict=True):
            terms = _terms(layer, table)
            corrected.append(np.maximum(np.einsum("t,tio->io", np.array(self.factors[1:]), terms), 0))
        return TableLatency.of(widths, corrected, constant=self.factors[0])


def fitted(
    widths: Widths, tables: Sequence[FloatArray], kept: IntArray, measured_ms: FloatArray, *, blocked: bool
) -> Correction:
    """The correction that fits plans [plans, groups] and their latencies [plans] best, by relative errors.

    blocked: whether the runtime computes in blocks of channels, and so changes the layout around a layer alone.
    Raises ValueError for fewer than 8 plans.
    """
    if len(kept) < FEWEST:
        raise ValueError(f"a correction is fitted to at least {FEWEST} measured plans, got {len(kept)}")
    terms = [_terms(layer, table) for layer, table in zip(widths.layers, tables, strict=True)]
    columns = [np.ones(len(kept))]
    for number in range(len(TERMS) - 1):
        columns.append(TableLatency.of(widths, [term[number] for term in terms])(kept))
    relative = np.stack(columns, axis=1) / measured_ms[:, None]
    expected = np.array([0.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    size = np.sqrt((relative**2).mean(axis=0))
    there = size > 0  # a network without depthwise layers says nothing about them
    there[4:] &= blocked
    scaled = relative[:, there] / size[there]
    rest = 1 - relative @ expected
    pull = np.sqrt(RIDGE * len(kept)) * np.eye(int(there.sum()))
    found, *_ = np.linalg.lstsq(np.vstack([scaled, pull]), np.concatenate([rest, np.zeros(len(pull))]), rcond=None)
    factors = expected.copy()
    factors[there] += found / size[there]
    return Correction(tuple(factors.tolist()))


def _terms(layer: FusedLayer, table: FloatArray) -> FloatArray:
    """[terms without the constant, inputs, outputs]: what factors are multiplied with. table: of the layer, in ms."""
    inputs = np.arange(table.shape[0], dtype=np.float64)[:, None] * layer.groups
    outputs = inputs if layer.square else np.arange(table.shape[1], dtype=np.float64)[None] * layer.groups
    found = np.zeros((len(TERMS) - 1, *table.shape))
    found[1 if layer.kind == "depthwise" else 0] = table
    if layer.kind in ("conv", "linear"):
        found[2] = inputs * outputs / layer.groups * np.prod(layer.kernel)
    if layer.kind in ("conv", "depthwise"):
        blocked = inputs % ALIGNED == 0
        found[3] = (blocked & (inputs >= BLOCK)) * inputs * np.prod(layer.size)
        found[4] = (blocked | (inputs < BLOCK)) * outputs * np.prod(layer.output_size)
    return found
