"""Whether what removing units does is what masking them does: groups are offered only where it is."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.structure.comparable_run import ComparableRun
from autoprune.structure.edit import Ranking, masked, shrink, temporarily_shrunk
from autoprune.structure.groups import CONFIG, HEADS, Attribute, Group, IntArray, Structure, apart
from autoprune.structure.layer_flow import stands_for
from autoprune.structure.layer_types import CONVOLUTIONS
from autoprune.structure.literal_sizes import LITERAL, literal_sizes
from autoprune.structure.narrowed_input import WITHHELD
from autoprune.structure.skipped_modules import patched_forward
from autoprune.structure.standardised_weights import OwnWeight
from autoprune.structure.tied_groups import partners, tied, zipped

PROBED = 16  # tokens that removing is compared with masking on
TOLERANCE = 1e-4  # largest difference between masked and shrunk, relative to each output's own size
DEAD = 1e-3  # weights below are replaced while a network is looked at: nothing is seen through a zero
TRIALS = 40  # of variants of a group, before it is left whole
KEYS = 6  # numbers of modules that may have to change with a group
LOUD = 1000.0  # times what a normalisation reads
STRANGERS = 6  # groups as large that are tried beside one that cannot go alone
BREAKS = "the network does not run without its units"
NOT_MASKED = "zeros in their place make the network return NaN or infinity, so that removing them is not masking them"
TOGETHER = 3  # and how many of them at once

Run = Callable[[nn.Module], Mapping[str, Tensor]]  # network → all its outputs, by name


class Verifier:
    """Tries groups on a network, and changes what has to be changed beside them until removing is masking.

    Args:
        model: The dense network, alive (`alive`).
        runs: One for each input that masked and shrunk networks are compared on.
        normalisers: Modules that normalise over units; they are passed over where groups that they normalise are tried.
        levels: Units → the numbers of units that a group may keep.
        deadline: When to stop trying, in seconds of time.monotonic.
    """

    def __init__(
        self,
        model: nn.Module,
        runs: Sequence[Run],
        *,
        normalisers: Sequence[str],
        levels: Callable[[Group], tuple[int, ...]],
        deadline: float,
    ) -> None:
        self._model, self._runs, self._normalisers, self._levels = model, runs, normalisers, levels
        self._deadline = deadline
        self._modules = dict(model.named_modules())
        self._learned: dict[frozenset[str], tuple[str, ...]] = {}
        self._trials = 0
        self._before: dict[str, Group] = {}  # groups that were given what one like them had needed

    def settle(self, groups: Sequence[Group]) -> tuple[list[Group], dict[str, str]]:
        """The groups that can go, alone and together, as they can go; and the others, each with the reason."""
        accepted: list[Group] = []
        rejected: dict[Group, str] = {}
        waiting = [replace(group, levels=self._levels(group)) for group in groups]
        while waiting:
            if self.reason([*accepted, *waiting]) is None:
                accepted += waiting
                break
            # the longest run of the first ones that passes, by bisection
            low, high = 0, len(waiting)
            while high - low > 1:
                middle = (low + high) // 2
                if self.reason([*accepted, *waiting[:middle]]) is None:
                    low = middle
                else:
                    high = middle
            accepted += waiting[:low]
            bad, waiting = waiting[low], waiting[low + 1 :]
            accepted, waiting = self._settle_one(bad, accepted, waiting, rejected)
        order = {group.name: index for index, group in enumerate(groups)}
        reasons = {group.name: reason for group, reason in rejected.items()}
        return sorted(accepted, key=lambda group: order[group.name]), reasons

    def _settle_one(
        self, bad: Group, accepted: list[Group], waiting: list[Group], rejected: dict[Group, str]
    ) -> tuple[list[Group], list[Group]]:
        """Accepts a variant of a group that does not pass as it is, without groups that it swallowed; or rejects it."""
        self._trials = 0
        alone = self.reason([bad])
        bad = self._before.pop(bad.name, bad) if alone else bad
        others = [self._before.get(group.name, group) for group in (*accepted, *waiting, *rejected)]
        runs_without = alone is None or not alone.startswith(BREAKS)
        strangers = [] if runs_without else [self._before.get(g.name, g) for g in (*waiting, *rejected)]
        for variant, swallowed in self._variants(bad, others, strangers) if alone else ():
            if self._trials >= TRIALS:
                break
            if time.monotonic() > self._deadline:
                rejected[bad] = f"{alone} (time was up before everything was tried)"
                return accepted, waiting
            gone = {group.name for group in swallowed}
            rest = [group for group in accepted if group.name not in gone]
            if self.reason([variant]) is None and self.reason([*rest, variant]) is None:
                variant = replace(variant, levels=self._levels(variant))
                waiting = [group for group in waiting if group.name not in gone]
                for group in [group for group in rejected if group.name in gone]:
                    del rejected[group]
                if not swallowed and variant.units == bad.units:
                    waiting = [self._like(variant, group) for group in waiting]
                return [*rest, variant], waiting
        rejected[bad] = alone or "it can go alone, but not together with the other groups"
        return accepted, waiting

    def _variants(
        self, group: Group, others: Sequence[Group], strangers: Sequence[Group]
    ) -> Iterator[tuple[Group, list[Group]]]:
        """The group with numbers of modules that follow it, with others that share its layers, with its units tied.

        And with a stranger that cannot go alone either: indices, as of a pooling that is undone, have no derivatives.
        """
        yield from ((variant, []) for variant in self._with_attributes(group))
        for chosen in partners(group, others):
            merged = zipped(group, chosen)
            yield merged, chosen
            yield from ((variant, chosen) for variant in self._with_attributes(merged))
        if self.reason([group]) == NOT_MASKED:  # what is divided by, or taken the logarithm of
            members = tuple(replace(m, filled=1.0) if "/" in m.axis else m for m in group.members)
            yield replace(group, members=members), []
        for parts in (2, 3, 4):
            if group.units % parts == 0 and group.units > parts:
                wider = tied(group, parts)
                yield wider, []
                yield from ((variant, []) for variant in self._with_attributes(wider))
        alike = [g for g in strangers if g.units == group.units and g.granularity == group.granularity]
        for stranger in alike[:STRANGERS]:
            if (self.reason([stranger]) or "").startswith(BREAKS):
                yield zipped(group, [stranger]), [stranger]

    def _with_attributes(self, group: Group) -> Iterator[Group]:
        numbers = self._numbers(group)
        keys = _nearest(numbers)
        chosen = [choice for size in range(1, TOGETHER + 1) for choice in combinations(keys, size)]
        learned = self._learned.get(frozenset(keys))
        for choice in [learned, *chosen] if learned else chosen:
            if self._trials >= TRIALS:
                return
            variant = replace(group, attributes=(*group.attributes, *(a for key in choice for a in numbers[key])))
            if self.reason([variant]) is None:
                self._learned[frozenset(keys)] = choice
                yield variant

    def _like(self, variant: Group, group: Group) -> Group:
        """The group with the attributes that a group like it needed."""
        numbers = self._numbers(group)
        choice = self._learned.get(frozenset(_nearest(numbers)))
        if not choice or group.attributes or group.granularity != variant.granularity:
            return group
        self._before[group.name] = group
        return replace(group, attributes=tuple(a for key in choice for a in numbers[key]))

    def _numbers(self, group: Group) -> dict[str, list[Attribute]]:
        """What the number of units may stand in: "class.name·per unit" → the whole numbers of modules around it."""
        around: dict[str, None] = {}
        near: set[str] = set()
        for member in group.members:
            parts = member.layer.split(".") if member.layer else []
            chain = [".".join(parts[:end]) for end in range(len(parts), -1, -1)]
            around |= dict.fromkeys(chain)
            near |= {*chain[1:3]}
        beside = (  # modules that only reshape, such as nn.Unflatten, or split what they read with layers in them
            f"{owner}.{name}".removeprefix(".")
            for owner in around
            for name, child in self._modules[owner].named_children()
            if owner in near or not [*child.children(), *child.parameters()]
            if isinstance(child, nn.Unflatten) or not type(child).__module__.startswith("torch.nn.")
        )
        owners = around | dict.fromkeys(beside)
        sizes = {1, *(member.positions.shape[1] for member in group.members)}
        wide = {member.positions.shape[1] for member in group.members}
        shared = {more // less for more in wide for less in wide if more % less == 0}  # queries of a key head
        sizes |= {member.size // group.units for member in group.members if member.size % group.units == 0}
        numbers: dict[str, list[Attribute]] = {}
        for owner in owners:
            module = self._modules[owner]
            if stands_for(module):
                continue
            for name, value in (
                *_whole_numbers(module),
                *((f"{LITERAL}[{number}]", size) for number, size in literal_sizes(module).items()),
                *(_input_width(module) if group.granularity == "head" else ()),
            ):
                if value % group.units == 0 and value // group.units in (sizes | shared if HEADS in name else sizes):
                    each = value // group.units
                    numbers.setdefault(f"{type(module).__name__}.{name}·{each}", []).append(
                        Attribute(owner, name, -each if name == WITHHELD else each)
                    )
        return numbers

    def exact_beside(self, group: Group, normalisers: Sequence[str]) -> bool:
        """Whether removing the group's units is masking them although modules normalise over them, as by their length.

        These read louder inputs meanwhile, too: one that does next to nothing with quiet ones is not taken for exact.

        Args:
            group: As it would be offered.
            normalisers: The modules' names.
        """
        modules = [self._modules[name] for name in normalisers]
        if any(type(module).__module__.startswith("torch.nn.") for module in modules):
            return False  # whose statistics run over fewer units
        if self.reason([group]) is not None:
            return False
        with patched_forward({module: _louder(module) for module in modules}):
            return self.reason([group]) is None

    def reason(self, groups: Sequence[Group]) -> str | None:
        """Why the groups can't go together; None where they can."""
        self._trials += 1
        groups = [replace(group, levels=self._levels(group)) for group in groups]
        if any(len(group.levels) < 2 for group in groups):
            return "it has too few units to leave a choice"
        structure = Structure(tuple(groups), ())
        rng = np.random.default_rng(len(groups))
        # a single unit might be broadcast to all that it should have met: not the floor, where there is a choice
        some = np.array([rng.choice(group.levels[1:-1] or group.levels[:1]) for group in groups], np.int64)
        half = np.where(rng.random(len(groups)) < 0.5, some, structure.units)
        generator = torch.Generator().manual_seed(len(groups))
        ranking = {group.name: torch.randperm(group.units, generator=generator) for group in groups}
        # the units that `some` keeps go and the others stay: none is where it should be by the luck of what is kept
        others = np.array([_nearest_level(g, g.units - n) for g, n in zip(groups, some, strict=True)], np.int64)
        reverse = {name: units.flip(0) for name, units in ranking.items()}
        plans = [(structure.floor, ranking), (some, ranking), (others, reverse)]
        plans += [(kept, ranking) for kept in (*([half] if len(groups) > 1 else []), *apart(structure))]
        passed_over = self._normalisers if not all(group.exact for group in groups) else ()
        for number, (kept, ranking) in enumerate(plans):
            runs = self._runs if number == 0 else self._runs[number % len(self._runs) :][:1]
            with ComparableRun(awake=number > 0, summed=not all(group.exact for group in groups)):
                error = differs(structure, kept, ranking, self._model, runs, passed_over=passed_over)
            if error:
                return error
        return None


def differs(
    structure: Structure,
    kept: IntArray,
    ranking: Ranking,
    model: nn.Module,
    runs: Sequence[Run],
    *,
    passed_over: Sequence[str] = (),
) -> str | None:
    """How the shrunk network differs from the masked one, on all outputs; None where it does not.

    Args:
        structure: The groups.
        kept: [groups] units of the plan that is tried.
        ranking: Group → its units, most important first.
        model: The dense network, as it was before when this returns.
        runs: Functions of a network that give its outputs by name; at least one.
        passed_over: Modules that hand on their inputs while the two are compared. The shrunk network runs once with
            them.
    """
    plan = structure.plan(kept)
    with torch.no_grad(), masked(model, structure, plan, ranking), _passing(model, passed_over):
        expected = [run(model) for run in runs]
    # modules that pass for others need a copy; else the network itself is cut for a while, which is faster
    copied = any(group.skips or group.compared or group.patterns for group in structure.groups)
    try:
        with torch.no_grad(), ExitStack() as stack:
            if copied:
                small = shrink(model, structure, plan, ranking)
            else:
                small = stack.enter_context(temporarily_shrunk(model, structure, plan, ranking))
            if passed_over and not all(torch.isfinite(t).all() for t in runs[0](small).values()):
                return "without its units the network returns NaN or infinity"
            with _passing(small, passed_over):
                outputs = [run(small) for run in runs]
    except Exception as error:  # whatever a user's forward pass checks
        return f"{BREAKS} ({type(error).__name__}: {error})"
    for masks, cuts in zip(expected, outputs, strict=True):
        for name, mask in masks.items():
            cut = cuts.get(name)
            if cut is None or cut.shape != mask.shape:
                return f"without its units output {name or 'of the network'} has another shape"
            if not bool(torch.isfinite(mask).all()) and bool(torch.isfinite(cut).all()):
                return NOT_MASKED
            change = (cut.double() - mask.double()).abs().max().item() if mask.numel() else 0.0
            size = mask.double().abs().max().item() if mask.numel() else 0.0
            if not change <= TOLERANCE * size:
                return (
                    f"removing its units differs from masking them by {change / size if size else change:.2g} of the "
                    f"size of {f'output {name}' if name else 'the output'}"
                )
    return None


@contextmanager
def _passing(network: nn.Module, names: Sequence[str]) -> Iterator[None]:
    modules = [network.get_submodule(name) for name in names]
    multiply = (*CONVOLUTIONS, nn.Linear)
    with patched_forward({m: _by_own_weight(m) if isinstance(m, multiply) else _first for m in modules}):
        yield


def _by_own_weight(layer: nn.Module) -> Callable[..., Any]:
    """The forward pass of a layer that standardises its weight, with the weight as it is."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        with OwnWeight(layer.get_parameter("weight")):
            return type(layer).forward(layer, *args, **kwargs)

    return forward


def _louder(module: nn.Module) -> Callable[..., Any]:
    def forward(first: Tensor, *args: Any, **kwargs: Any) -> Any:
        return type(module).forward(module, first * LOUD, *args, **kwargs)

    return forward


def _first(*args: Any, **kwargs: Any) -> Any:
    return [*args, *kwargs.values()][0]


@contextmanager
def alive(model: nn.Module) -> Iterator[nn.Module]:
    """Weights and biases of zero are replaced by small numbers while the context is open, and come back after.

    A branch that ends in zeros (a normalisation's scale before training, a LayerScale of 1e-6) would hide what is wrong
    in it.
    """
    generator = torch.Generator().manual_seed(0)
    with ExitStack() as stack:
        for parameter in model.parameters():
            if not parameter.is_floating_point() or not parameter.numel() or parameter.is_meta:
                continue
            values = parameter.detach()
            rows = values.flatten(1) if values.ndim > 1 else values.reshape(-1, 1)
            dead = rows.abs().amax(dim=1) < DEAD
            if not dead.any():
                continue
            stack.callback(_restore, parameter, parameter.data)
            size = 1.0 if values.ndim < 2 else rows.shape[1] ** -0.5
            noise = size * (0.1 + 0.8 * torch.rand(rows.shape, generator=generator)).to(rows)
            if values.ndim > 1:
                noise *= torch.where(torch.rand(rows.shape, generator=generator) < 0.5, -1.0, 1.0).to(rows)
            parameter.data = torch.where(dead[:, None], noise, rows).view_as(values)
        yield model


def _restore(parameter: Tensor, values: Tensor) -> None:
    parameter.data = values


def _nearest(numbers: Mapping[str, list[Attribute]]) -> list[str]:
    """The keys whose modules stand nearest to the group's first layer; lists', code's and inputs' numbers last."""
    return sorted(numbers, key=lambda key: ("[" in key) + 2 * (WITHHELD in key))[:KEYS]


def _input_width(module: nn.Module) -> list[tuple[str, int]]:
    """The width of what the module's own layers read, from which it may take that of its heads."""
    widths = {
        int(size) for c in module.children() for k in ("in_features", "in_channels") if (size := getattr(c, k, 0))
    }
    return [(WITHHELD, max(widths))] if widths else []


def _whole_numbers(module: nn.Module) -> Iterator[tuple[str, int]]:
    """The module's own numbers above 0, also those in lists of them: ("sizes[0]", 8)."""
    config = vars(module).get(CONFIG)
    shared = {f"{CONFIG}.{name}": value for name, value in getattr(config, "__dict__", {}).items() if HEADS in name}
    for name, value in {**vars(module), **shared}.items():
        if name.startswith("_"):
            continue
        if type(value) is int and value > 0:
            yield name, value
        elif isinstance(value, list | tuple) and type(value) in (list, tuple):
            yield from ((f"{name}[{i}]", v) for i, v in enumerate(value) if type(v) is int and v > 0)


def _nearest_level(group: Group, units: int) -> int:
    """The level below all of the group's units that is nearest to so many."""
    return min(group.levels[:-1], key=lambda level: abs(level - units))
