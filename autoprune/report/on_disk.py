"""What networks take on the disk: accuracy over size of each part of compression, and a file layer by layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from autoprune.report.drawing import COLOURS, SERIES, Draw, Key, log_axis
from autoprune.report.page_tables import Cell, PageTable, Row
from autoprune.report.wording import count, percent, size

PARTS = ("pruning alone", "quantization alone", "both")
RETRAINED = "both, after recovery"
PART_COLOURS = dict(zip((*PARTS, RETRAINED), SERIES, strict=False))


@dataclass(frozen=True, slots=True)
class SizedNetwork:
    """One point: a network, or the mean over seeds."""

    smaller: float
    """How many times smaller its file is than the dense network's parameters at fp32."""
    points: float
    """Its metric less the dense network's, in percentage points or in the metric's unit."""
    half: float = 0.0
    """Half of its interval; 0 where there is none."""


def over_size(series: Mapping[str, Sequence[SizedNetwork]], *, ylabel: str) -> Draw:
    """Returns what draws each part's networks from the largest file to the smallest.

    Args:
        series: One of PARTS → its networks.
        ylabel: What is lost or won, with its unit.
    """

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=COLOURS["dense"], lw=1.4)
        for name, networks in series.items():
            ordered = sorted(networks, key=lambda network: network.smaller)
            x, y, half = np.array([[each.smaller, each.points, each.half] for each in ordered]).T
            line = "none" if name == PARTS[2] and len(ordered) > 1 else "-"
            axes.errorbar(
                x, y, yerr=half if half.any() else None, color=COLOURS[PART_COLOURS[name]], marker="o", ms=6,
                lw=2.0, ls=line, elinewidth=1.2,
            )  # fmt: skip
        axes.set(xscale="log", xlabel="times smaller than the parameters at fp32", ylabel=ylabel)
        log_axis(axes.xaxis, subs=(1, 2, 5))

    return draw


def size_key(series: Mapping[str, Sequence[SizedNetwork]]) -> list[Key]:
    """Returns the legend: the parts that are drawn, and the dense network.

    Args:
        series: One of PARTS → its networks.
    """
    return [("dense", "line", "dense"), *((PART_COLOURS[name], "dot", name) for name in series)]


def layer_table(layers: Sequence[Mapping[str, Any]]) -> PageTable:
    """Deep Compression's table (arXiv 1510.00149) of a network's file.

    Args:
        layers: A record for each layer, as `LayerSizes.as_json` has it.
    """
    columns = [
        *(("", title) for title in ("weights", "kept")),
        *(("Bits of a kept weight", title) for title in ("code", "index", "code, coded", "index, coded")),
        *(("Bytes", title) for title in ("indices", "codebook", "codes", "of fp32")),
    ]
    rows = []
    for layer in layers:
        parts, bits = layer["parts"], [layer["coded_value_bits"], layer["coded_index_bits"]]
        cells = [count(layer["weights"]), percent(layer["kept"] / max(layer["weights"], 1))]
        cells += [str(parts["value_bits"]), str(parts["index_bits"]), *(f"{each:.2f}" for each in bits)]
        cells += [size(parts[name]) for name in ("positions", "table", "codes")]
        rows.append(Row(layer["name"], [*map(Cell, cells), Cell(percent(layer["bytes"] / (4 * layer["weights"])))]))
    return PageTable(columns, rows)
