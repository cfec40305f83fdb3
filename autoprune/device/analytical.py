"""Devices that are not at hand, by their public figures."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import nn

from autoprune.cost.model import CostModel, FloatArray
from autoprune.cost.observed import NetworkCosts
from autoprune.cost.peak_memory import peak_memory
from autoprune.device.calibration import fitted_factors
from autoprune.device.roofline import Factors, Figures, Roofline
from autoprune.device.timing import Timings
from autoprune.ranges import Count, NonNegative, Positive, check_fields
from autoprune.structure.groups import IntArray, Structure
from autoprune.task.task import Task

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}  # of an element at each precision


@dataclass(frozen=True, slots=True)
class AnalyticalDevice:
    """A roofline, from a file of conf/device. Every figure is checked: ValueError names the key and the rule."""

    name: str
    """What reports call it."""
    peak_gmacs: Mapping[str, Positive]
    """Precision → 10⁹ multiply–accumulates a second."""
    precision: str
    """The one that networks run at."""
    memory_gb_s: Positive
    """10⁹ bytes a second."""
    caches: Mapping[Count, Positive]
    """KiB → 10⁹ bytes a second of what fits in so many."""
    kernel_us: NonNegative
    """Microseconds per layer, whatever it computes."""
    granularity: Count
    """Channels that are computed together."""
    sram_kib: Positive | None = None
    """KiB that activations have to fit in; None: no limit."""
    pj_per_mac: Positive | None = None
    """Picojoules of a multiply–accumulate; None: not known."""
    pj_per_byte: Positive | None = None
    """Picojoules of a byte moved; None: not known."""
    factors: Factors = field(default_factory=Factors)
    """From `calibrated`, or guessed."""

    def __post_init__(self) -> None:
        check_fields(self, "device")
        if not set(self.peak_gmacs) <= set(BYTES) or len(self.peak_gmacs) == 0:
            raise ValueError(
                f"device.peak_gmacs of {self.name!r} must have one of {list(BYTES)} at least and no other, got "
                f"{list(self.peak_gmacs)}"
            )
        if self.precision not in self.peak_gmacs:
            raise ValueError(
                f"device.precision of {self.name!r} is {self.precision!r}, for which peak_gmacs has no figure; it has "
                f"{list(self.peak_gmacs)}"
            )
        if sorted(self.caches.values(), reverse=True) != [self.caches[size] for size in sorted(self.caches)]:
            raise ValueError(
                f"device.caches of {self.name!r}: a larger cache is faster than a smaller one: {self.caches}"
            )

    def costs(self, task: Task, structure: Structure) -> dict[str, CostModel]:
        """Latency in ms for one sample and, where the figures are known, energy in mJ.

        Args:
            task: Whose network is pruned.
            structure: The network's groups.

        Raises:
            ValueError: Even the smallest plan's activations do not fit into the device's memory.
        """
        size = BYTES[self.precision]
        if self.sram_kib is not None:
            memory = peak_memory(task.model, structure, task.example_input, forward=task.forward, element_bytes=size)
            least = float(memory(structure.floor)) / 1024
            if least > self.sram_kib:
                raise ValueError(
                    f"even the smallest plan of {task.name!r} needs {least:.0f} KiB for activations, and "
                    f"{self.name} has {self.sram_kib:.0f} (device.sram_kib); choose another device, or smaller inputs"
                )
        observed = NetworkCosts(task.model, structure, task.example_input, forward=task.forward)
        costs: dict[str, CostModel] = {"latency": self.latency(observed)}
        if self.pj_per_mac is not None and self.pj_per_byte is not None:
            costs["energy"] = observed.energy(
                pj_per_mac=self.pj_per_mac, pj_per_byte=self.pj_per_byte,
                weight_bytes=size, activation_bytes=size,
            )  # fmt: skip
        return costs

    def latency(self, costs: NetworkCosts) -> Roofline:
        """Of the plans of a network, in ms for one sample."""
        return Roofline.of(costs, self._figures, self.factors)

    def latencies(self, task: Task, networks: Mapping[str, nn.Module]) -> Timings | None:
        """None: it is not at hand.

        Args:
            task: The trained network, its data and its metric.
            networks: What is run, on the task's example.
        """
        return None

    def calibrated(self, costs: NetworkCosts, kept: IntArray, measured_ms: FloatArray) -> "AnalyticalDevice":
        """The device whose factors fit measured latencies best.

        Args:
            costs: Those of the network.
            kept: [plans, groups] at least 6 plans.
            measured_ms: [plans] above 0.
        """
        return replace(self, factors=fitted_factors(self.latency(costs), kept, measured_ms))

    @property
    def _figures(self) -> Figures:
        return Figures(
            macs_per_s=1e9 * self.peak_gmacs[self.precision],
            element_bytes=BYTES[self.precision],
            bytes_per_s=1e9 * self.memory_gb_s,
            caches=tuple((1024.0 * size, 1e9 * self.caches[size]) for size in sorted(self.caches)),
            kernel_s=1e-6 * self.kernel_us,
            granularity=self.granularity,
        )
