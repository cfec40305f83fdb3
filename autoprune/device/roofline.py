"""Latency from a device's figures: a layer takes as long as its arithmetic, or its memory traffic."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.model import FloatArray, plans_along
from autoprune.cost.observed import NetworkCosts
from autoprune.ranges import FiniteNonNegative, check_fields
from autoprune.structure.groups import IntArray

COUNTED = ("conv", "linear")  # kinds of layers that take time of their own; what follows them is fused into them
TRACED = ("channel", "neuron")
FIRST = 4  # input channels up to which a first layer has kernels of its own, that pad nothing
ALIGNED = 4  # channels that kernels without padding are for multiples of


@dataclass(frozen=True, slots=True)
class Figures:
    """What a roofline is made of, in base units."""

    macs_per_s: float
    """At the precision that networks run at."""
    element_bytes: int
    """Of an element at that precision."""
    bytes_per_s: float
    """Of memory."""
    caches: tuple[tuple[float, float], ...]
    """(bytes, bytes per second), smallest first."""
    kernel_s: float
    """Seconds per layer, whatever it computes."""
    granularity: int
    """Channels that are computed together, so that others are computed for nothing."""


@dataclass(frozen=True, slots=True)
class Factors:
    """How many times longer than its figures say a device takes, each at least 0."""

    compute: FiniteNonNegative = 1.0
    """For arithmetic."""
    unaligned: FiniteNonNegative = 1.0
    """For arithmetic of layers whose input channels are no multiple of 4, on top of that."""
    depthwise: FiniteNonNegative = 1.0
    """For arithmetic of depthwise layers."""
    memory: FiniteNonNegative = 1.0
    """For memory traffic."""
    kernel: FiniteNonNegative = 1.0
    """For what a layer takes whatever it computes."""

    def __post_init__(self) -> None:
        check_fields(self, "device.factors")


@dataclass(frozen=True, slots=True, eq=False)
class Roofline:
    """A CostModel: Σ over layers of max(arithmetic, traffic) + per kernel, in milliseconds for one sample."""

    figures: Figures
    """Peak compute, bandwidths and overheads of the device."""
    factors: Factors
    """By which time is longer than these figures say."""
    outputs: IntArray
    """[layers, groups + 1]: output channels, affine in the kept units."""
    inputs: IntArray
    """[layers, groups + 1]: input channels of one convolution group."""
    weight: IntArray
    """[layers]: elements of the kernel."""
    positions: IntArray
    """[layers]: output positions."""
    read: IntArray
    """[layers]: input positions that are read."""
    depthwise: NDArray[np.bool_]
    """[layers]"""
    name: str = "latency"
    """What budgets and reports call the cost."""
    unit: str = "ms"
    """What the cost is counted in."""

    @classmethod
    def of(cls, costs: NetworkCosts, figures: Figures, factors: Factors) -> "Roofline":
        """The roofline of a network whose groups lose channels and neurons; ValueError where they lose other things.

        Args:
            costs: What is counted of each layer.
            figures: The device's peak compute and bandwidths.
            factors: How far the device stays behind its figures.
        """
        structure = costs.structure
        strange = sorted({group.granularity for group in structure.groups} - set(TRACED))
        if strange:
            raise ValueError(
                f"a roofline is for networks that lose channels or neurons, and this one's groups lose {strange}; give "
                "it another budget, such as macs:0.5, bytes:0.5 or kv_cache:0.5"
            )
        layers = [layer for layer in structure.layers if layer.kind in COUNTED]
        outputs, inputs = ([costs.axis(f"{layer.name}.weight", axis) for layer in layers] for axis in (0, 1))
        return cls(
            figures,
            factors,
            outputs=np.stack(outputs),
            inputs=np.stack(inputs),
            weight=np.array([layer.kernel for layer in layers], np.int64),
            positions=np.array([layer.positions for layer in layers], np.int64),
            read=np.array([layer.positions * layer.stride**2 for layer in layers], np.int64),
            depthwise=np.array([layer.depthwise for layer in layers], np.bool_),
        )

    def __call__(self, kept: IntArray) -> FloatArray:
        terms = self.terms(kept)
        arithmetic = terms[..., :3] @ np.array([self.factors.compute, self._unaligned, self.factors.depthwise])
        longer = np.maximum(arithmetic, self.factors.memory * terms[..., 3]) + self.factors.kernel * terms[..., 4]
        return np.asarray(1e3 * longer.sum(axis=-1), np.float64)

    def along(self, kept: IntArray, group: int, levels: IntArray) -> FloatArray:
        return self(plans_along(kept, group, levels))

    def terms(self, kept: IntArray) -> FloatArray:
        """[..., layers, 5]: seconds of arithmetic in aligned, unaligned, depthwise layers, of traffic, per kernel."""
        units = np.asarray(kept, np.float64)
        outputs: FloatArray = units @ self.outputs[:, :-1].T + self.outputs[:, -1]
        inputs: FloatArray = units @ self.inputs[:, :-1].T + self.inputs[:, -1]
        deep = self.depthwise
        unaligned = (inputs % ALIGNED > 0) & (inputs > FIRST) & ~deep
        padded = np.where(deep | (inputs <= FIRST), inputs, self._padded(inputs)) * self._padded(outputs)
        arithmetic = padded * self.weight * self.positions / self.figures.macs_per_s
        read = np.where(deep, outputs, inputs) * self.read
        moved = (outputs * inputs * self.weight + read + outputs * self.positions) * self.figures.element_bytes
        terms = np.zeros((*arithmetic.shape, 5))
        terms[..., 0] = np.where(unaligned | deep, 0, arithmetic)
        terms[..., 1] = np.where(unaligned, arithmetic, 0)
        terms[..., 2] = np.where(deep, arithmetic, 0)
        terms[..., 3] = moved / self._bandwidth(moved)
        terms[..., 4] = self.figures.kernel_s
        return terms

    @property
    def _unaligned(self) -> float:
        return self.factors.compute * self.factors.unaligned

    def _padded(self, channels: FloatArray) -> FloatArray:
        return np.asarray(np.ceil(channels / self.figures.granularity) * self.figures.granularity)

    def _bandwidth(self, moved: FloatArray) -> FloatArray:
        """Bytes per second of the smallest cache that holds all that a layer reads and writes, or of memory."""
        bandwidth = np.full(moved.shape, self.figures.bytes_per_s)
        for size, speed in reversed(self.figures.caches):
            bandwidth = np.where(moved <= size, speed, bandwidth)
        return bandwidth
