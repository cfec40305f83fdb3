"""Finds the groups of a network: an experiment says what is coupled, a trial whether it can go."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from autoprune.callers_modes import plain_torch
from autoprune.ranges import Count, check_value
from autoprune.structure.components import ONE_PIECE, Candidate, candidates
from autoprune.structure.couplings import Laboratory, Progress
from autoprune.structure.edit import evaluating
from autoprune.structure.examples import Example, in_single_precision, runs_of
from autoprune.structure.families import FAMILIES, model_type
from autoprune.structure.geometry import (
    Survey,
    examples_like,
    idle_layers,
    other_params,
    survey,
    unseen_parameters,
    widths_of,
)
from autoprune.structure.groups import Group, RoundTo, Structure, holds, levels_of
from autoprune.structure.kinds import DEFAULT_KINDS
from autoprune.structure.layer_flow import Nodes
from autoprune.structure.plain_experts import expert_groups
from autoprune.structure.refused import refuse_wrapped
from autoprune.structure.routing_choices import rerouted_examples
from autoprune.structure.single_weights import single_weight_structure
from autoprune.structure.stand_ins import MIXED, Couplings, SegmentedRun
from autoprune.structure.transformer import token_ids, transformer_structure
from autoprune.structure.verified_sample import sampled
from autoprune.structure.verify import PROBED, Verifier, alive
from autoprune.task.copies import copied
from autoprune.task.task import Forward, plain_forward

TIME_LIMIT_S = 300.0
AVERAGED = (
    "the network takes a mean or a maximum over its units, which is another one without some of them; "
    "structure.inexact=true offers them all the same"
)
OF_OTHERS = ({"weights"}, {"experts"}, {"neurons"}, {"neurons", "experts"})  # kinds, where no family is known


@plain_torch(alone=True)
def find_structure(  # noqa: PLR0913 - keyword-only settings, part of the public interface
    model: nn.Module,
    example_input: Any,
    *,
    keep: Collection[str] = frozenset(),
    prune: tuple[str, ...] | None = None,
    round_to: RoundTo = 1,
    min_units: int = 1,
    forward: Forward = plain_forward,
    example_inputs: Sequence[Any] = (),
    inexact: bool = False,
    time_limit_s: float = TIME_LIMIT_S,
    progress: Progress | None = None,
) -> Structure:
    """The groups of coupled layers of `model`, verified: removing units equals masking them, on all outputs.

    Of a transformer whose parts are known by its type, one group of each kind is verified, and all together. The
    network is looked at in eval mode, whatever its own, and stays as it is.

    Args:
        model: The trained network.
        example_input: What it is called with: a tensor [1, ...], a tuple or a dict of several.
        keep: Layers whose outputs stay whole, or modules that hold such layers.
        prune: The kinds of groups of a transformer (structure/kinds.py); None: heads and neurons. Of any other network
            ("weights",): single weights, without verifying anything; ("experts",): whole experts of lists of modules
            (structure/plain_experts.py), beside what is found without it if "neurons" is named, too.
        round_to: Kept units fill multiples of so many channels or features, or all of the group's; "auto": of 8, or of
            fewer where a group is small, and heads go one by one.
        min_units: The fewest units that a group keeps.
        forward: (network, inputs) → outputs: how the network is called.
        example_inputs: More examples, for layers that only some inputs reach.
        inexact: Offer groups, too, that a LayerNorm or the like normalises over (`Group.exact`).
        time_limit_s: When to give up looking, in seconds.
        progress: Called with (done, of) now and then.

    Returns:
        The structure. Layers that cannot be pruned are listed with the reason.

    Raises:
        ValueError: The network does not run, is of a kind that cannot be taken apart, nothing in it can be pruned, or
            time is up.
    """
    check_value(model, nn.Module, "the model")
    check_value(round_to, Count | Literal["auto"], "round_to")
    check_value(min_units, Count, "min_units")
    check_value(keep, Collection[str], "keep")
    keep = frozenset(keep)
    ids = token_ids(example_input)
    if model_type(model) in FAMILIES and ids is not None:
        structure = transformer_structure(
            model, ids, prune=prune or DEFAULT_KINDS, keep=keep, round_to=round_to, min_units=min_units
        )
        probe = Example(ids[:, :PROBED])  # `forward` may ask at positions that so few tokens lack
        with evaluating(model):
            return sampled(structure, model, ids, probe.outputs)
    if prune is not None and (len(set(prune)) < len(prune) or {*prune} not in OF_OTHERS):
        raise ValueError(
            f"structure.prune={list(prune)} is for transformers of the types {sorted(FAMILIES)}; this "
            f"{type(model).__name__} is {model_type(model) or 'none'}. Leave it out to prune channels and neurons, or "
            "name neurons, experts, both of them, or weights"
        )
    refuse_wrapped(model)
    settings = _Settings(round_to, min_units, inexact, time.monotonic() + time_limit_s)
    given = [Example(inputs, forward) for inputs in (example_input, *example_inputs)]
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in model.parameters()):  # too coarse to tell units apart
        model, given = copied(model).float(), [in_single_precision(example) for example in given]
    with evaluating(model):
        surveys = [survey(model, example) for example in given]
        _check_keep(keep, surveys)
        if prune is not None and "weights" in prune:
            return single_weight_structure(model, surveys, keep=keep, round_to=round_to, min_units=min_units)
        further = list(rerouted_examples(model, given, surveys))
        given, surveys = [*given, *(other for other, _ in further)], [*surveys, *(reached for _, reached in further)]
        small = examples_like(model, given, surveys)
        with alive(model):
            whole = expert_groups(model, small, keep=keep) if prune is not None and "experts" in prune else None
            if prune is not None and "neurons" not in prune:
                return _structure(model, small, surveys, [], whole, [], settings)
            proposed, normalisers = _candidates(model, small, keep=keep, settings=settings, progress=progress)
            return _structure(model, small, surveys, proposed, whole, normalisers, settings)


@dataclass(frozen=True, slots=True)
class _Settings:
    round_to: RoundTo
    min_units: int
    inexact: bool
    deadline: float
    """In seconds of time.monotonic."""


def _candidates(
    model: nn.Module,
    examples: Sequence[Example],
    *,
    keep: frozenset[str],
    settings: _Settings,
    progress: Progress | None,
) -> tuple[list[Candidate], list[str]]:
    """What is coupled, and the modules that normalise over several units."""
    propose = partial(_proposed, model, examples, keep=keep, settings=settings, progress=progress)
    proposed, undecided, couplings, returns_sums = propose()
    through = couplings.folded
    if through:  # heads can go where they are normalised one by one, though not the same feature of all of them
        others, further, *_ = propose(through=through)
        if _refused_units(others) < _refused_units(proposed):
            proposed, undecided = others, further
        else:
            through = set()
    names = {f"{module}.{key}".removeprefix(".") for (module, key), written in undecided.items() if written}
    refused = {candidate.name for candidate in proposed if candidate.reason is not None}
    last: list[tuple[str, str]] = []
    if names & refused:  # where the first dimension of a weight is no unit, the last one may be
        last = [key for key, written in undecided.items() if not written or ".".join(key).removeprefix(".") in refused]
        others, *_ = propose(last=last, through=through)
        if len(names & {candidate.name for candidate in others if candidate.reason}) < len(names & refused):
            proposed = others
    if returns_sums or any((candidate.reason or "").startswith((MIXED, ONE_PIECE)) for candidate in proposed):
        others, *_ = propose(last=last, through=through, sums=True)
        if _refused_units(others) < _refused_units(proposed):
            proposed = others
    return proposed, list(dict.fromkeys(name for candidate in proposed for name in candidate.normalisers))


def _refused_units(proposed: Sequence[Candidate]) -> int:
    return sum(member.positions.size for c in proposed if c.reason is not None for member in c.members)


def _proposed(  # noqa: PLR0913 - keyword-only settings
    model: nn.Module,
    examples: Sequence[Example],
    *,
    keep: frozenset[str],
    settings: _Settings,
    progress: Progress | None,
    last: Collection[tuple[str, str]] = (),
    through: Collection[str] = (),
    sums: bool = False,
) -> tuple[list[Candidate], dict[tuple[str, str], bool], Couplings, bool]:
    """The candidates, parameters with several dimensions that may be units, couplings, and whether sums are returned.

    last: Of these parameters, those of which the last dimension is taken.

    through: Normalisations that are looked at as functions, not as layers.

    sums: Sums over units are looked at, too, as between the queries and keys of an attention of one head, and units
        that pass by layers of another dimension, as those that mix the nodes of a graph.
    """
    couplings = Couplings(Nodes())
    laboratories: list[Laboratory] = []
    undecided: dict[tuple[str, str], bool] = {}
    returns_sums = False
    for example in examples:
        run = SegmentedRun(model, couplings, last, through)
        laboratory = Laboratory(run, deadline=settings.deadline, progress=progress)
        if sums:
            run.single_units, run.handed_on = laboratory.single_units, laboratory.handed_on
        run.record(example)
        undecided |= run.weights.undecided
        returns_sums |= run.returns_sums
        try:
            laboratory.follow()
        except TimeoutError as error:
            raise ValueError(
                f"the structure of this {type(model).__name__} was not found in time, {error}; give a smaller example "
                "input, or more time (structure.time_limit_s)"
            ) from error
        laboratories.append(laboratory)
    proposed = candidates(model, couplings, laboratories, keep=keep, inexact=settings.inexact)
    return proposed, undecided, couplings, returns_sums


def _structure(
    model: nn.Module,
    examples: Sequence[Example],
    surveys: Sequence[Survey],
    proposed: Sequence[Candidate],
    whole: tuple[list[Group], dict[str, str]] | None,
    normalisers: Sequence[str],
    settings: _Settings,
) -> Structure:
    round_to, min_units = settings.round_to, settings.min_units

    def levels(group: Group) -> tuple[int, ...]:
        if group.skips:
            return group.levels
        step = 1 if round_to == "auto" and group.granularity == "head" else round_to
        return levels_of(group.units, round_to=step, min_units=min_units, each=group.members[0].positions.shape[1])

    experts, unprunable = whole or ([], {})
    groups: list[Group] = []
    idle = idle_layers(model, surveys)
    elsewhere = widths_of(model, idle) if any(seen.decides for seen in surveys) else {}
    verifier = Verifier(
        model, runs_of(examples, model), normalisers=normalisers, levels=levels, deadline=settings.deadline
    )
    for candidate in proposed:
        group = Group(
            candidate.name, candidate.granularity, candidate.units, candidate.members, (), candidate.attributes,
            exact=not (candidate.normalisers or candidate.averaged),
        )  # fmt: skip
        if candidate.reason is None and candidate.normalisers and not candidate.averaged:
            exactly = replace(group, exact=True)
            if verifier.exact_beside(exactly, candidate.normalisers):
                group = exactly
        reason = _refusal(candidate, group, model, elsewhere, inexact=settings.inexact)
        if reason is None and len(levels(group)) < 2:
            reason = f"min_units={min_units} and round_to={round_to} leave no choice for its {group.units} units"
        if reason:
            unprunable[candidate.name] = reason
        else:
            groups.append(group)
    accepted, rejected = verifier.settle([*groups, *experts])
    cut = {member.layer for group in accepted for member in group.members}  # some of which are read without a call
    seen_in = {member.layer for candidate in proposed for member in candidate.members}
    idle |= unseen_parameters(model, surveys, seen_in)
    unprunable |= rejected | {name: why for name, why in idle.items() if name not in cut | unprunable.keys()}
    if not accepted:
        none = "none of its layers writes units that another one reads, or it computes their weights"
        if whole is not None and not proposed:
            none = "no list of modules that are alike reads one tensor, or rows that are routed to its modules"
        raise ValueError(f"nothing in this network can be pruned: {unprunable or none}")
    layers = tuple({layer.name: layer for s in reversed(surveys) for layer in s.layers}.values())
    return Structure(tuple(accepted), layers, unprunable, other_params(model, layers))


def _refusal(
    candidate: Candidate, group: Group, model: nn.Module, elsewhere: Mapping[int, str], *, inexact: bool
) -> str | None:
    """Why a candidate is not tried; None: it is."""
    if candidate.reason is not None:
        return candidate.reason
    if not (group.exact or inexact):
        if candidate.averaged:
            return AVERAGED
        first = candidate.normalisers[0]
        return (
            f"its units are normalised together by {first}, a {type(model.get_submodule(first)).__name__}: without "
            "some the network is not the masked one; structure.inexact=true offers them all the same"
        )
    other = next((elsewhere[m.size] for m in candidate.members if m.size in elsewhere), None)
    if other is not None:
        return (
            f"the forward pass looks at values, and for other inputs {other}, which the example input does not "
            "run, may read or write its units; give an example that runs it (Task.example_inputs)"
        )
    return None


def _check_keep(keep: frozenset[str], surveys: Sequence[Survey]) -> None:
    names = list(dict.fromkeys(name for seen in surveys for name in seen.calls))
    idle = sorted(name for name in keep if not any(holds(name, layer) for layer in names))
    if idle:
        raise ValueError(f"keep names {idle}, which hold no layer that runs; the layers are {names}")
