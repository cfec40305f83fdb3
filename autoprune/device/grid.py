"""Where a layer's latency is measured, and what it is in between: staircases with steps at multiples of 4 and 16.

Libraries compute channels in blocks, and take another way where a number of channels is no multiple of 4. So widths are
of two classes, multiples of 4 and others, whose latencies are interpolated each by its own kind only.
"""

from collections.abc import Callable

import numpy as np

from autoprune.cost.model import FloatArray
from autoprune.structure.groups import IntArray

ALIGNED = 4  # channels: multiples of it are a class of their own
BLOCK = 16  # channels that are computed together, where anything is
FINE = 64  # widths up to here are measured densely
OTHERS = (1, 2, 3, 6, 10, 14, 15, 17, 22, 31, 33, 47, 49, 63)  # of those, with both sides of every block's end
WIDER = (80, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768)


def knots(least: int, most: int) -> IntArray:
    """The widths that are measured of an axis with `least` to `most` channels, ascending.

    Args:
        least: The smallest width.
        most: The largest width.
    """
    if least == most:
        return np.array([most], np.int64)
    aligned = {*range(ALIGNED, FINE + 1, ALIGNED), FINE + ALIGNED, *WIDER}
    others = {*OTHERS, FINE + 1, *(wide - 1 for wide in WIDER)}
    chosen = {width for width in aligned | others if least <= width <= most}
    for in_class in (True, False):  # both ends of the axis, in either class
        ends = [*range(least, least + ALIGNED), *range(most - ALIGNED + 1, most + 1)]
        ends = [width for width in ends if least <= width <= most and (width % ALIGNED == 0) == in_class]
        chosen |= {min(ends), max(ends)} if ends else set()
    return np.array(sorted(chosen), np.int64)


def table(inputs: IntArray, outputs: IntArray, measured: FloatArray) -> FloatArray:
    """The latency at every width, [most inputs + 1, most outputs + 1].

    Each pair of classes is interpolated for itself, bilinearly over widths of which `stepping` says how far each is
    rounded up to its block. Widths below the first knot are as fast as it.

    Args:
        inputs: [input knots] ascending.
        outputs: [output knots] ascending.
        measured: [input knots, output knots] latencies.
    """
    latency = np.empty((int(inputs[-1]) + 1, int(outputs[-1]) + 1))
    for rows, knots_in in _classes(inputs):
        for columns, knots_out in _classes(outputs):
            block = measured[np.ix_(np.isin(inputs, knots_in), np.isin(outputs, knots_out))]
            along_in = _matrix(rows, knots_in, block)
            along_out = _matrix(columns, knots_out, block.T)
            latency[np.ix_(rows, columns)] = along_in @ block @ along_out.T
    return latency


def line(widths: IntArray, measured: FloatArray) -> FloatArray:
    """The same for layers of one width: [most + 1] from measured [widths].

    Args:
        widths: Widths that are asked for.
        measured: What was measured, in the same order.
    """
    return table(widths, np.array([0], np.int64), measured[:, None])[:, 0]


def _classes(knots: IntArray) -> list[tuple[IntArray, IntArray]]:
    """The widths up to the last knot that each class's knots are for."""
    widths = np.arange(int(knots[-1]) + 1)
    aligned, others = knots[knots % ALIGNED == 0], knots[knots % ALIGNED > 0]
    if not len(aligned) or not len(others):
        return [(widths, knots)]
    return [(widths[widths % ALIGNED == 0], aligned), (widths[widths % ALIGNED > 0], others)]


def _matrix(widths: IntArray, knots: IntArray, measured: FloatArray) -> FloatArray:
    """[widths, knots]: interpolates linearly what is measured [knots, others]."""
    coordinate = _coordinates(knots, measured)
    x, at = coordinate(widths), coordinate(knots)
    right = np.clip(np.searchsorted(at, x), 1, max(len(knots) - 1, 1))
    if len(knots) == 1:
        return np.ones((len(widths), 1))
    share = np.clip((x - at[right - 1]) / np.maximum(at[right] - at[right - 1], 1e-9), 0, 1)
    shares = np.zeros((len(widths), len(knots)))
    shares[np.arange(len(widths)), right] = share
    shares[np.arange(len(widths)), right - 1] += 1 - share
    exact = np.isin(widths, knots)  # these are what they were measured, also where a step puts two of them at one point
    shares[exact] = widths[exact, None] == knots
    return shares


def _coordinates(knots: IntArray, measured: FloatArray) -> Callable[[IntArray], FloatArray]:
    """Where a width lies: up to FINE where it is, and beyond that the further towards its block's end, the more the
    first block beyond FINE is a step.
    """
    stepped = stepping(knots, measured)

    def coordinate(widths: IntArray) -> FloatArray:
        beyond = np.maximum(widths, FINE)
        rounded = -(-beyond // BLOCK) * BLOCK
        return np.where(widths <= FINE, widths, (1 - stepped) * beyond + stepped * rounded)

    return coordinate


def stepping(knots: IntArray, measured: FloatArray) -> float:
    """How much of a step the first block beyond FINE is, in [0, 1]: 0 a slope, 1 a step.

    Args:
        knots: Widths that were measured, ascending.
        measured: [knots, others].
    """
    around = [np.flatnonzero(knots <= FINE), np.flatnonzero(knots > FINE), np.flatnonzero(knots == FINE + BLOCK)]
    around[2] = around[2] if len(around[2]) else np.flatnonzero(knots == FINE + BLOCK - 1)
    if not all(map(len, around)):
        return 0.0
    before, first, last = around[0][-1], around[1][0], around[2][0]
    if last <= first:
        return 0.0
    rise = measured[last].sum() - measured[before].sum()
    expected = (knots[first] - knots[before]) / (knots[last] - knots[before])
    if rise <= 0:
        return 0.0
    share = (measured[first].sum() - measured[before].sum()) / rise
    return float(np.clip((share - expected) / (1 - expected), 0, 1))
