"""The costs that budgets and reports may name, each counted when somebody asks for it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from torch import nn

from autoprune.cost.encoded_bytes import encoded_bytes
from autoprune.cost.model import CostModel
from autoprune.cost.observed import NetworkCosts
from autoprune.cost.peak_memory import peak_memory
from autoprune.cost.recording import Forward
from autoprune.ranges import Count, OneOf, Positive, check_fields
from autoprune.structure.families import FAMILIES, model_type
from autoprune.structure.groups import Structure
from autoprune.task.samples import Samples

ALWAYS = ("macs", "params", "weights", "bytes")  # in every record
BITS = (8, 16, 32)
ENCODED_BITS = (*range(1, 9), 32)


@dataclass(frozen=True, slots=True)
class CostSettings:
    """How costs are counted that not every record has."""

    report: tuple[str, ...] = ()
    """Costs to count in every record, whether the budget bounds them or not."""
    weight_bits: Annotated[int, OneOf(BITS)] = 8
    """Of each weight of a matrix or kernel: 8, 16 or 32."""
    encoded_bits: Annotated[int, OneOf(ENCODED_BITS)] = 32
    """Of each weight's code in `encoded_bytes`: 1 to 8 for a codebook's, 32 for values as they are."""
    activation_bits: Annotated[int, OneOf(BITS)] = 32
    """Of each activation, keys and values included: 8, 16 or 32."""
    context: Count | None = None
    """Tokens that a decoder keeps keys and values of, and has read when `decode` is timed; None: the example's."""
    pj_per_mac: Positive | None = None
    """Picojoules of a multiply–accumulate; None: not known."""
    pj_per_byte: Positive | None = None
    """Picojoules of a byte moved; None: not known."""

    def __post_init__(self) -> None:
        check_fields(self, "costs")


class Countable(Mapping[str, CostModel]):
    """Name → cost, of one network. Each is made once; making one raises ValueError where the network has no such cost.

    Args:
        model: The dense network.
        structure: Its groups.
        example_input: A batch that it runs on.
        forward: (network, inputs) → outputs.
        settings: Precisions and figures that some costs need.
        others: Costs of another origin, a device's.
        measured: Costs of another origin, which are measured when somebody asks for them.
    """

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        example_input: Samples,
        *,
        forward: Forward,
        settings: CostSettings,
        others: Mapping[str, CostModel] | None = None,
        measured: Mapping[str, Callable[[], CostModel]] | None = None,
    ) -> None:
        self._network, self._forward, self._settings = (model, structure, example_input), forward, settings
        weight_bytes, activation_bytes = settings.weight_bits // 8, settings.activation_bits // 8
        self._makers: dict[str, Callable[[], CostModel]] = {
            "macs": lambda: self._observed.macs(),
            "params": lambda: self._observed.params(),
            "weights": lambda: self._observed.weights(),
            "bytes": lambda: self._observed.parameter_bytes(),
            "weight_bytes": lambda: self._observed.weight_bytes(bytes_per_weight=weight_bytes),
            "encoded_bytes": self._encoded_bytes,
            "peak_memory": self._peak_memory,
            "energy": self._energy,
            "kv_cache": lambda: self._observed.kv_cache(
                context=settings.context or example_input.shape[-1], element_bytes=activation_bytes
            ),
            **(measured or {}),
        }
        self._made: dict[str, CostModel] = dict(others or {})

    @property
    def uncounted(self) -> tuple[str, ...]:
        """What of the network's costs could not be counted, a sentence each."""
        return self._observed.uncounted

    def __getitem__(self, name: str) -> CostModel:
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def __contains__(self, name: object) -> bool:  # Mapping's own would make it
        return name in self._made or name in self._makers

    def __iter__(self) -> Iterator[str]:
        return iter({**self._makers, **self._made})

    def __len__(self) -> int:
        return len({**self._makers, **self._made})

    def recorded(self) -> dict[str, CostModel]:
        """Those that belong into records: ALWAYS, what `report` names, and what was asked for so far."""
        if unknown := [name for name in self._settings.report if name not in self]:
            raise ValueError(f"costs.report names unknown costs {unknown}; the costs are {list(self)}")
        return {name: self[name] for name in dict.fromkeys((*ALWAYS, *self._settings.report, *self._made))}

    @cached_property
    def _observed(self) -> NetworkCosts:
        model, structure, example = self._network
        return NetworkCosts(model, structure, example, forward=self._forward)

    def _encoded_bytes(self) -> CostModel:
        model, structure, _ = self._network
        bits = self._settings.encoded_bits
        return encoded_bytes(model, structure, self._observed, value_bits=bits)

    def _peak_memory(self) -> CostModel:
        model, structure, example = self._network
        if model_type(model) in FAMILIES:
            raise ValueError(
                f"peak_memory is counted where groups are found by experiment, not for a {model_type(model)} model; "
                "bound its weight_bytes, or a decoder's kv_cache"
            )
        size = self._settings.activation_bits // 8
        return peak_memory(model, structure, example, forward=self._forward, element_bytes=size)

    def _energy(self) -> CostModel:
        settings = self._settings
        if settings.pj_per_mac is None or settings.pj_per_byte is None:
            raise ValueError(
                "energy needs what a MAC and a byte take on the device, in picojoules: costs.pj_per_mac and "
                "costs.pj_per_byte"
            )
        return self._observed.energy(
            pj_per_mac=settings.pj_per_mac,
            pj_per_byte=settings.pj_per_byte,
            weight_bytes=settings.weight_bits // 8,
            activation_bytes=settings.activation_bits // 8,
        )
