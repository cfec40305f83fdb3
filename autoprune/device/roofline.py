"""Latency from a device's figures: a layer takes as long as its arithmetic, or its memory traffic."""

from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.model import FloatArray, plans_along
from autoprune.cost.observed import NetworkCosts
from autoprune.structure.groups import IntArray

COUNTED = ("conv", "linear")  # kinds of layers that take time of their own; what follows them is fused into them
TRACED = ("channel", "neuron")
FIRST = 4  # input channels up to which a first layer has kernels of its own, that pad nothing
ALIGNED = 4  # channels that kernels without padding are for multiples of


@dataclass(frozen=True, slots=True)
class Figures:
    """What a roofline is made of, in base units.

    macs_per_s: at the precision that networks run at; element_bytes: of it. bytes_per_s: of memory. caches: (bytes,
    bytes per second), smallest first. kernel_s: per layer, whatever it computes. granularity: channels that are
    computed together, so that others are computed for nothing.
    """

    macs_per_s: float
    element_bytes: int
    bytes_per_s: float
    caches: tuple[tuple[float, float], ...]
    kernel_s: float
    granularity: int


@dataclass(frozen=True, slots=True)
class Factors:
    """How many times longer than its figures say a device takes: for arithmetic, for arithmetic of layers whose input
    channels are no multiple of 4 (on top of that), of depthwise layers, for memory traffic and per kernel.
    """

    compute: float = 1.0
    unaligned: float = 1.0
    depthwise: float = 1.0
    memory: float = 1.0
    kernel: float = 1.0

    def __post_init__(self) -> None:
        for field, value in zip(fields(self), astuple(self), strict=True):
            if not (isinstance(value, int | float) and 0 <= value < float("inf")):
                raise ValueError(f"device.factors.{field.name} must be a number of at least 0, got {value!r}")


@dataclass(frozen=True, slots=True, eq=False)
class Roofline:
    """A CostModel: Σ over layers of max(arithmetic, traffic) + per kernel, in milliseconds for one sample.

    outputs, inputs [layers, groups + 1]: affine in the kept units. weight [layers]: elements of the kernel. positions,
    read [layers]: output positions, and input positions that are read. depthwise [layers].
    """

    figures: Figures
    factors: Factors
    outputs: IntArray
    inputs: IntArray
    weight: IntArray
    positions: IntArray
    read: IntArray
    depthwise: NDArray[np.bool_]
    name: str = "latency"
    unit: str = "ms"

    @classmethod
    def of(cls, costs: NetworkCosts, figures: Figures, factors: Factors) -> "Roofline":
        """Raises ValueError for networks that lose other things than channels and neurons."""
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
        found = np.zeros((*arithmetic.shape, 5))
        found[..., 0] = np.where(unaligned | deep, 0, arithmetic)
        found[..., 1] = np.where(unaligned, arithmetic, 0)
        found[..., 2] = np.where(deep, arithmetic, 0)
        found[..., 3] = moved / self._bandwidth(moved)
        found[..., 4] = self.figures.kernel_s
        return found

    @property
    def _unaligned(self) -> float:
        return self.factors.compute * self.factors.unaligned

    def _padded(self, channels: FloatArray) -> FloatArray:
        return np.asarray(np.ceil(channels / self.figures.granularity) * self.figures.granularity)

    def _bandwidth(self, moved: FloatArray) -> FloatArray:
        """Bytes per second of the smallest cache that holds all that a layer reads and writes, or of memory."""
        found = np.full(moved.shape, self.figures.bytes_per_s)
        for size, speed in reversed(self.figures.caches):
            found = np.where(moved <= size, speed, found)
        return found
