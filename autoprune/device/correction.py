"""What a whole network takes beyond its layers: a few factors, fitted to a handful of its plans."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.device.calibration import ridge_fit
from autoprune.device.fused_layer import FusedLayer
from autoprune.device.grid import ALIGNED, BLOCK
from autoprune.device.table_latency import TableLatency
from autoprune.device.widths import Widths
from autoprune.structure.groups import IntArray

FEWEST = 8  # plans that factors are fitted to
TERMS = ("constant", "dense layers", "depthwise", "weights", "blocked inputs", "blocked outputs")
EXPECTED = (0.0, 1.0, 1.0, 0.0, 0.0, 0.0)  # of the terms, where layers just add up


@dataclass(frozen=True, slots=True)
class Correction:
    """latency = constant + Σ over layers of (factor of its kind) · its latency + the other terms.

    The term `weights` is in ms per weight: a network's lie in slower memory than those of a layer that is run again and
    again. Blocked inputs and outputs are in ms per activation: a runtime that computes blocks of channels need not
    change the layout of these between two layers, but has to around a layer alone.
    """

    factors: tuple[float, ...]
    """[terms] in the order of TERMS."""

    def applied(self, widths: Widths, tables: Sequence[FloatArray]) -> TableLatency:
        """The layers' tables [ms] as a cost model that is corrected.

        Args:
            widths: The widths of every layer, by what groups keep.
            tables: Of each layer [widths read, widths written], in milliseconds.
        """
        factors = np.array(self.factors[1:])
        terms = [_terms(layer, table) for layer, table in zip(widths.layers, tables, strict=True)]
        corrected = [np.maximum(np.einsum("t,tio->io", factors, term), 0) for term in terms]
        return TableLatency.of(widths, corrected, constant=self.factors[0])


def fitted(
    widths: Widths, tables: Sequence[FloatArray], kept: IntArray, measured_ms: FloatArray, *, blocked: bool
) -> Correction:
    """The correction that fits plans and their latencies best, by relative errors.

    Args:
        widths: The network's layers.
        tables: [layers] tables of each, in ms.
        kept: [plans, groups] at least 8 plans.
        measured_ms: [plans]
        blocked: Whether the runtime computes in blocks of channels, and so changes the layout around a layer alone.
    """
    if len(kept) < FEWEST:
        raise ValueError(f"a correction is fitted to at least {FEWEST} measured plans, got {len(kept)}")
    terms = [_terms(layer, table) for layer, table in zip(widths.layers, tables, strict=True)]
    columns = [np.ones(len(kept))]
    for number in range(len(TERMS) - 1):
        columns.append(TableLatency.of(widths, [term[number] for term in terms])(kept))
    relative = np.stack(columns, axis=1) / measured_ms[:, None]
    relative[:, 4:] *= blocked  # a network without depthwise layers says nothing about them, and so here
    return Correction(tuple(ridge_fit(relative, np.array(EXPECTED)).tolist()))


def _terms(layer: FusedLayer, table: FloatArray) -> FloatArray:
    """[terms without the constant, inputs, outputs]: what factors are multiplied with. table: of the layer, in ms."""
    inputs = np.arange(table.shape[0], dtype=np.float64)[:, None] * layer.groups
    outputs = inputs if layer.square else np.arange(table.shape[1], dtype=np.float64)[None] * layer.groups
    terms = np.zeros((len(TERMS) - 1, *table.shape))
    terms[1 if layer.kind == "depthwise" else 0] = table
    if layer.kind in ("conv", "linear"):
        terms[2] = inputs * outputs / layer.groups * np.prod(layer.kernel)
    if layer.kind in ("conv", "depthwise"):
        blocked = inputs % ALIGNED == 0
        terms[3] = (blocked & (inputs >= BLOCK)) * inputs * np.prod(layer.size)
        terms[4] = (blocked | (inputs < BLOCK)) * outputs * np.prod(layer.output_size)
    return terms
