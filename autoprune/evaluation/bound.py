"""What an ordered network binds to a plan beside tensors: what modules know, what stands in for them, what they see."""

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from autoprune.quantize.shared_weights import shared_values
from autoprune.structure.axes import Kept
from autoprune.structure.block_sparse import install_pattern
from autoprune.structure.code_bits import RAW_BITS
from autoprune.structure.edit import lower
from autoprune.structure.groups import CONFIG, Group, Pattern
from autoprune.structure.skipped_modules import Skipped

CODED_BYTES = 64 * 2**20  # of a layer's coded weights that are kept for the next plan with the same levels


class BoundCodes:
    """Gives a layer, whose weight is bound already, the values that its weights share at the bits of its group.

    Args:
        layer: Of an ordered network.
        group: The index of its group of bits.
        others: Indices of all other groups that take from the layer.
    """

    def __init__(self, layer: nn.Module, group: int, others: Sequence[int]) -> None:
        self.layer, self.group, self.others = layer, group, tuple(others)
        self._raw: Tensor | None = None
        self._coded: Tensor | None = None
        self._cache: OrderedDict[Kept, Tensor] = OrderedDict()

    def bind(self, kept: Kept) -> None:
        weight, bits = self.layer.__dict__["weight"], kept[self.group]
        if weight is self._coded:  # nobody has bound another one since
            weight = self._raw
        self._raw, self._coded = weight, None
        if bits < RAW_BITS:
            key = (bits, *(kept[index] for index in self.others))
            if key not in self._cache:
                self._cache[key] = shared_values(weight, bits)
                while len(self._cache) > max(1, CODED_BYTES // max(1, weight.nbytes)):
                    self._cache.popitem(last=False)
            self._cache.move_to_end(key)
            self._coded = self._cache[key]
        self.layer.__dict__["weight"] = weight if self._coded is None else self._coded


class BoundModules:
    """What modules know of a group's kept units, and those that are passed over when it keeps none."""

    def __init__(self, layers: Mapping[str, nn.Module], group: Group, index: int) -> None:
        self.group, self.bound = index, group.units
        self.attributes = [(layers[number.module], number) for number in group.attributes]
        for module, number in self.attributes:
            if number.name.startswith(f"{CONFIG}."):  # which all modules share
                module.__dict__[CONFIG] = copy.copy(module.__dict__[CONFIG])
        self.skips = [
            # a forward of the module's own is that of hooks which move tensors between devices
            (layers[skip.module], Skipped(skip.returns), layers[skip.module].__dict__.get("forward"))
            for skip in group.skips
        ]

    def bind(self, kept: Kept) -> None:
        for module, number in self.attributes:
            lower(module, number, removed=self.bound - kept[self.group])  # below 0 where units come back
        self.bound = kept[self.group]
        for module, stand_in, own in self.skips:
            wanted = stand_in if kept[self.group] == 0 else own
            if wanted is not None:
                module.__dict__["forward"] = wanted
            else:
                module.__dict__.pop("forward", None)


class BoundMask:
    """Shows an attention the blocks of keys of its level, where that is another one than before; all without a mask."""

    def __init__(self, attention: nn.Module, pattern: Pattern, group: int, units: int) -> None:
        self.attention, self.pattern, self.group, self.units = attention, pattern, group, units
        self.bound = units
        self.installed: RemovableHandle | None = None

    def bind(self, kept: Kept) -> None:
        level = kept[self.group]
        if level == self.bound:
            return
        if self.installed is not None:
            self.installed.remove()
        self.installed = install_pattern(self.attention, self.pattern, level) if level < self.units else None
        self.bound = level
