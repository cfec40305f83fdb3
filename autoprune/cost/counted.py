"""The costs that budgets and reports may name, each counted when somebody asks for it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from autoprune.cost.kv_cache import kv_cache
from autoprune.cost.liveness import Forward
from autoprune.cost.model import CostModel, macs, parameter_bytes, params, weight_bytes, weights
from autoprune.cost.peak_memory import peak_memory
from autoprune.cost.traffic import energy
from autoprune.structure.families import FAMILIES, model_type
from autoprune.structure.groups import Structure

ALWAYS = ("macs", "params", "weights", "bytes")  # in every record
BITS = (8, 16, 32)


@dataclass(frozen=True, slots=True)
class CostSettings:
    """report: costs to count in every record, whether the budget bounds them or not.

    weight_bits, activation_bits: of each weight of a convolution or linear layer, and of each activation, keys and
    values included. context: tokens that a decoder keeps keys and values of; None: the example's. pj_per_mac,
    pj_per_byte: energy in picojoules; None: not known.
    """

    report: tuple[str, ...] = ()
    weight_bits: int = 8
    activation_bits: int = 32
    context: int | None = None
    pj_per_mac: float | None = None
    pj_per_byte: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "report", tuple(self.report))
        for name in ("weight_bits", "activation_bits"):
            if getattr(self, name) not in BITS:
                raise ValueError(f"costs.{name} must be one of {list(BITS)}, got {getattr(self, name)}")


class Countable(Mapping[str, CostModel]):
    """Name → cost, of one network. Each is made once; making one raises ValueError where the network has no such cost.

    others: costs of another origin, a device's.
    """

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        example_input: Tensor,
        *,
        forward: Forward,
        settings: CostSettings,
        others: Mapping[str, CostModel] | None = None,
    ) -> None:
        self._network = (model, structure, example_input)
        self._forward, self._settings = forward, settings
        self._makers: dict[str, Callable[[], CostModel]] = {
            "macs": lambda: macs(structure),
            "params": lambda: params(structure),
            "weights": lambda: weights(structure),
            "bytes": lambda: parameter_bytes(structure),
            "weight_bytes": lambda: weight_bytes(structure, bytes_per_weight=settings.weight_bits // 8),
            "peak_memory": self._peak_memory,
            "energy": self._energy,
            "kv_cache": self._kv_cache,
        }
        self._made: dict[str, CostModel] = dict(others or {})

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

    def _peak_memory(self) -> CostModel:
        model, structure, example = self._network
        if model_type(model) in FAMILIES:
            raise ValueError(
                f"peak_memory is counted for networks that are traced, not for a {model_type(model)} model; "
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
        return energy(
            self._network[1],
            pj_per_mac=settings.pj_per_mac,
            pj_per_byte=settings.pj_per_byte,
            weight_bytes=settings.weight_bits // 8,
            activation_bytes=settings.activation_bits // 8,
        )

    def _kv_cache(self) -> CostModel:
        model, structure, example = self._network
        context = self._settings.context or example.shape[-1]
        return kv_cache(model, structure, context=context, element_bytes=self._settings.activation_bits // 8)
