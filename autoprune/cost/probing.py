"""How a network's sizes depend on what its groups keep, found from copies that are a little narrower."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import gcd, prod

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.cost.recording import Forward, Recording, record
from autoprune.structure.edit import evaluating, shrink
from autoprune.structure.groups import Group, IntArray, Structure
from autoprune.structure.routing_choices import SameRouting
from autoprune.task.copies import copied
from autoprune.task.samples import Samples, leaves, mapped, repeated

CHECKS = 2  # random plans on which the sizes that were found must be right
LIGHT = 10**10  # parameters times entries of the input, up to which computing takes less time than the meta device
MISSING = -1  # the size of what a copy lacks


@dataclass(frozen=True, slots=True)
class Copy:
    """What is seen of one copy of a network."""

    recording: Recording
    """What its forward pass computes."""
    parameters: Mapping[str, tuple[int, ...]]
    """The shape of every parameter, tied ones once."""
    buffers: Mapping[str, tuple[int, ...]]
    """The shape of every buffer of floating-point numbers that is saved with the network."""


class Copies:
    """Forward passes of pruned copies of a network, for one sample.

    Args:
        model: The dense network.
        structure: Its groups.
        example_input: A batch that it runs on; its first sample is taken, or all of it where the network does not run
            on that alone, as one that finds the frames of a video in the batch.
        forward: (network, inputs) → outputs.
        shapes_only: The values of tensors do not matter. A large network then runs on the meta device, where nothing is
            computed; a small one computes faster than it is traced there, and one that needs values has no choice.
    """

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        example_input: Samples,
        *,
        forward: Forward,
        shapes_only: bool = False,
    ) -> None:
        self.structure, self._forward = structure, forward
        self._model, self._inputs = model, _first_sample(model, example_input, forward)
        self._ranking = {group.name: torch.arange(group.units) for group in structure.groups}
        self._seen: dict[bytes, Copy] = {}
        self._routing = SameRouting()
        if shapes_only and _work(model, self._inputs) > LIGHT:
            values = self._model, self._inputs
            try:
                self._model, self._inputs = on_meta(model), mapped(self._inputs, _to_meta)
                self(structure.units)
            except Exception:  # whatever it is that needs values: the network runs on them instead
                self._model, self._inputs, self._routing = *values, SameRouting()

    def __call__(self, kept: IntArray) -> Copy:
        """What is seen of the copy that keeps so many units of each group: kept [groups]. It runs once."""
        key = np.asarray(kept, np.int64).tobytes()
        if key not in self._seen:
            self._seen[key] = self._run(kept)
        return self._seen[key]

    def _run(self, kept: IntArray) -> Copy:
        small = shrink(self._model, self.structure, self.structure.plan(kept), self._ranking)
        with self._routing.once_more():  # a narrower router would choose others
            recording = record(small, self._inputs, forward=self._forward)
        parameters = {name: tuple(parameter.shape) for name, parameter in small.named_parameters()}
        buffers = {
            name: tuple(tensor.shape)
            for name, tensor in small.state_dict(keep_vars=True).items()
            if isinstance(tensor, Tensor) and not isinstance(tensor, nn.Parameter) and tensor.is_floating_point()
        }
        return Copy(recording, parameters, buffers)


def _first_sample(model: nn.Module, example_input: Samples, forward: Forward) -> Samples:
    """The first sample of a batch, or all of it where the network runs on nothing less."""
    one = repeated(example_input, 1)
    if all(len(tensor) == 1 for tensor in leaves(example_input)):
        return one
    try:
        with torch.no_grad(), evaluating(model):
            forward(model, one)
    except Exception:  # whatever a user's forward pass checks
        return example_input
    return one


def _work(model: nn.Module, inputs: Samples) -> int:
    """A bound on the multiply–accumulates: every parameter at every entry of the input."""
    entries = sum(tensor.numel() for tensor in leaves(inputs))
    return entries * sum(parameter.numel() for parameter in model.parameters())


def on_meta(model: nn.Module) -> nn.Module:
    """A copy of the network without values: its tensors have shapes and types only."""
    tensors = [*model.parameters(), *model.buffers()]
    tensors += [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return copied(model, {id(tensor): _to_meta(tensor) for tensor in tensors})


def _to_meta(tensor: Tensor) -> Tensor:
    made = tensor.detach().to("meta")
    return nn.Parameter(made, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made


@dataclass(frozen=True, slots=True)
class SizeFunction:
    """scale · Π (table · [kept, 1]): a size of a network under any plan. Most have one table, or none.

    >>> SizeFunction(9, ((1, 0, 3),))  # 9 · (k₀ + 3), where k₁ is what another group keeps
    """

    scale: int
    """A whole number that all tables are multiplied by."""
    tables: tuple[tuple[int, ...], ...] = ()
    """[groups + 1] each: a coefficient for each group's kept units, and a constant, without common divisor."""

    def __call__(self, kept: IntArray) -> IntArray:
        """The size under every plan: kept [..., groups] → [...]."""
        size = np.full(np.shape(kept)[:-1], self.scale, np.int64)
        for table in self.tables:
            size = size * (np.asarray(kept, np.int64) @ np.array(table[:-1], np.int64) + table[-1])
        return size

    def __mul__(self, other: "SizeFunction") -> "SizeFunction":
        return SizeFunction(self.scale * other.scale, self.tables + other.tables)

    def affine(self, groups: int) -> IntArray:
        """The size as one table [groups + 1]. Raises ValueError where it is a product of several."""
        if len(self.tables) > 1:
            raise ValueError(f"a size is a product of {len(self.tables)} tables, not affine in the kept units")
        table = self.tables[0] if self.tables else (*[0] * groups, 1)
        return self.scale * np.array(table, np.int64)


def narrows(group: Group) -> bool:
    """Whether plans make tensors smaller by the group's units, rather than modules vanish or weights zero."""
    return len(group.levels) > 1 and not (group.skips or group.compared or group.patterns or group.coded)


def probe(
    structure: Structure, sizes_of: Callable[[IntArray], IntArray], *, optional: bool = False
) -> list[SizeFunction | None]:
    """The functions that the sizes of a network follow, found from few narrower copies and checked on random plans.

    All groups lose a level in one copy. In each of log₂(groups) further copies those do whose index has one bit set, so
    that a size that depends on one group says which. Where several groups change a size, each of those gets a copy of
    its own. Such a size is a sum of what the groups add, or else a product of what each of them makes of it.

    Args:
        structure: The network's groups.
        sizes_of: Kept [groups] → sizes [sizes] of that copy, `MISSING` for what it lacks.
        optional: A random plan may lack a size, as torch leaves out products with an axis of length 1.

    Returns:
        [sizes]; None where a size follows no such function, or is missing in some copy.
    """
    units, groups = structure.units, [i for i, group in enumerate(structure.groups) if narrows(group)]
    lower = units.copy()
    lower[groups] = [structure.groups[index].levels[-2] for index in groups]
    seen: list[tuple[IntArray, IntArray]] = []

    def change(lowered: list[int]) -> IntArray:
        kept = units.copy()
        kept[lowered] = lower[lowered]
        sizes = sizes_of(kept)
        seen.append((kept, sizes))
        return dense - sizes

    dense = sizes_of(units)
    slopes = np.zeros((len(dense), len(units)), np.int64)
    if groups:
        whole = change(groups)
        codes = np.arange(len(groups))[:, None] >> np.arange(max(1, (len(groups) - 1).bit_length())) & 1
        lost = [change([groups[index] for index in np.flatnonzero(bits)]) for bits in codes.T]
        halves = np.array(lost)  # [bits, sizes]
        alone = ((halves == 0) | (halves == whole)).all(axis=0)
        owner = (halves != 0).T @ (1 << np.arange(len(halves)))
        owned = np.flatnonzero(alone & (whole != 0) & (owner < len(groups)))
        slopes[owned, np.array(groups)[owner[owned]]] = whole[owned]
        shared = np.flatnonzero(~alone)
        for group, code in zip(groups, codes, strict=True):
            with_it = np.where(code[:, None] == 1, halves[:, shared] != 0, halves[:, shared] != whole[shared])
            if with_it.all(axis=0).any():
                slopes[shared, group] = change([group])[shared]
        slopes //= np.maximum(units - lower, 1)
    probed = len(seen)
    rng = np.random.default_rng(0)
    for _ in range(CHECKS if groups else 1):
        kept = units.copy()
        kept[groups] = [rng.choice(structure.groups[index].levels) for index in groups]
        seen.append((kept, sizes_of(kept)))
    plans, observed = np.stack([kept for kept, _ in seen]), np.stack([dense, *(sizes for _, sizes in seen)])
    distinct, first, of = np.unique(observed, axis=1, return_index=True, return_inverse=True)
    required = np.arange(len(plans)) < (probed if optional else len(plans))
    functions: list[SizeFunction | None] = []
    for sizes, row in zip(distinct.T, first, strict=True):
        there = sizes[1:] != MISSING
        lacking = bool((required & ~there).any())
        function = _function(int(sizes[0]), slopes[row], units, plans[there], sizes[1:][there])
        functions.append(None if lacking else function)
    return [functions[index] for index in of.ravel()]


def _function(size: int, slopes: IntArray, units: IntArray, plans: IntArray, sizes: IntArray) -> SizeFunction | None:
    """The function of one size that agrees with all that was seen of it: `sizes` [plans] under `plans` [plans, groups].

    Args:
        size: Of the dense network.
        slopes: What one more unit of a group adds, [groups], with all others whole.
        units: Of the dense network, [groups].
    """
    changing = np.flatnonzero(slopes)
    each = np.zeros((len(changing), len(units) + 1), np.int64)
    each[np.arange(len(changing)), changing] = slopes[changing]
    each[:, -1] = size - slopes[changing] * units[changing]
    added = np.append(slopes, size - slopes @ units)
    for tables in ([added], list(each)) if len(changing) > 1 else ([added],):
        function = _reduced(size, tables)
        if function is not None and (function(plans) == sizes).all():
            return function
    return None


def _reduced(size: int, tables: list[IntArray]) -> SizeFunction | None:
    """The product of tables, each equal to `size` for the dense network, over size^(tables − 1)."""
    divisors = [gcd(*table.tolist()) for table in tables]
    reduced = [tuple((table // divisor).tolist()) for table, divisor in zip(tables, divisors, strict=True) if divisor]
    scale, remainder = divmod(prod(divisors), size ** (len(tables) - 1)) if size else (0, 0)
    varying = tuple(table for table in reduced if any(table[:-1]))
    return None if remainder else SizeFunction(scale, varying)
