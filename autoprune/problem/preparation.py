"""The steps by which a task is made ready, in the order in which `Problem.prepare` takes them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoprune.cost.budget import parse_budget
from autoprune.cost.counted import CostSettings, Countable
from autoprune.cost.model import CostModel, FloatArray
from autoprune.cost.projection import Projector
from autoprune.device.decode_latency import decode_latency
from autoprune.device.device import Device, on_steps
from autoprune.evaluation.candidates import Candidates
from autoprune.importance.criterion import CriterionInputs, Importance, Scores, criterion_name, rank, scored
from autoprune.importance.disk_backed import disk_backed
from autoprune.machine_cache import MeasurementCache, cache_dir
from autoprune.problem.repair_choice import choose_repair
from autoprune.problem.spec import ProblemSpec, StructureSettings
from autoprune.repair.folding import followers
from autoprune.repair.least_squares import LeastSquares, Reconstruction, reconstruct
from autoprune.repair.repair import Repair
from autoprune.repair.replace_me import replacements
from autoprune.repair.sparse_gpt_levels import sparse_gpt_levels
from autoprune.repair.weight_levels import WeightLevels
from autoprune.seeding import torch_generator
from autoprune.structure.code_bits import with_bits
from autoprune.structure.couplings import Progress
from autoprune.structure.edit import Ranking
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Group, Structure
from autoprune.structure.transformer import token_ids
from autoprune.structure.uniform_groups import in_order, merged, separate
from autoprune.task.task import Role, Task

# A search fits what it is rewarded by: with 500, its plans end 0.5 to 1 point worse on Fashion-MNIST (docs/design.md).
PROXY_SAMPLES = 1_500
CURVES = LeastSquares(ridge=1e-3, rows=4096)  # where nothing is repaired by them: only their errors are looked at


def split_search_role(task: Task, proxy_samples: int | None) -> tuple[Role, Role]:
    """The search samples that rewards see, and those that are held out to choose a plan by.

    Args:
        task: The trained network, its data and its metric.
        proxy_samples: Of the search role, that rewards see; None for the default.
    """
    search = task.data.search
    if proxy_samples is None:
        proxy_samples = task.proxy_samples or min(PROXY_SAMPLES, len(search) // 2)
    if not 1 <= proxy_samples < len(search):
        raise ValueError(
            f"evaluation.proxy_samples must be in [1, {len(search) - 1}] to leave some of the search role's "
            f"{len(search)} samples held out, got {proxy_samples}"
        )
    return search[:proxy_samples], search[proxy_samples:]


def task_structure(
    task: Task, settings: StructureSettings, device: Device | None, *, progress: Progress | None = None
) -> tuple[Structure, Mapping[str, CostModel]]:
    """The task's groups with the levels that each may keep, and the costs that the device adds.

    Args:
        task: The trained network, its data and its metric.
        settings: Which groups are looked for.
        device: Where networks will run; None for nowhere in particular.
        progress: Called with (done, of) now and then while groups are looked for.
    """
    levelled = partial(_levelled, task, settings, progress)
    if settings.round_to == "device" and device is None:
        raise ValueError("structure.round_to=device needs a device, such as device=this_cpu; or set a whole number")
    if device is None:
        own = settings.round_to == "auto" and task.levels is not None  # a task that says its levels, such as a table's
        return levelled(1 if own else settings.round_to), {}
    every_level = settings.round_to in ("auto", "device")
    structure = levelled(1 if every_level else settings.round_to)
    costs = device.costs(task, structure)
    if not every_level:
        return structure, costs
    stepped = on_steps(structure, costs["latency"])
    has_steps = any(left.levels != group.levels for left, group in zip(stepped.groups, structure.groups, strict=True))
    if settings.round_to == "device" or has_steps:
        return stepped, costs
    rounded = levelled("auto")  # a device without steps says nothing of widths
    return rounded, device.costs(task, rounded)


def _levelled(task: Task, settings: StructureSettings, progress: Progress | None, round_to: Any) -> Structure:
    structure = find_structure(
        task.model,
        task.example_input,
        keep=task.keep,
        prune=task.prune if settings.prune is None else settings.prune,
        round_to=round_to,
        min_units=settings.min_units,
        forward=task.forward,
        example_inputs=task.example_inputs,
        inexact=settings.inexact,
        time_limit_s=settings.time_limit_s,
        progress=progress,
    )
    structure = merged(structure, settings.uniform) if settings.uniform else structure
    structure = structure if task.levels is None else evenly_spaced(structure, task.levels)
    return structure if settings.bits is None else with_bits(structure, task.model, settings.bits)


def evenly_spaced(structure: Structure, count: int) -> Structure:
    """The structure whose groups may keep `count` of their levels, nearest to equal steps up to all units.

    A group that has no more levels than that keeps them.

    Args:
        structure: The network's groups and layers.
        count: How many of its levels a group may keep, at least 2.
    """
    if count < 2:
        raise ValueError(f"task.levels must be at least 2, or a group has nothing to choose from; got {count}")
    groups = []
    for group in structure.groups:
        levels, targets = np.array(group.levels), group.units * np.arange(1, count + 1) / count
        nearest = np.unique(levels[np.abs(levels[:, None] - targets).argmin(axis=0)]).tolist()
        groups.append(replace(group, levels=group.levels if len(levels) <= count else tuple(nearest)))
    return replace(structure, groups=tuple(groups))


def bounded_costs(
    task: Task,
    structure: Structure,
    budget: str | Sequence[str] | None,
    *,
    settings: CostSettings,
    others: Mapping[str, CostModel],
) -> tuple[Countable, Projector]:
    """The network's costs, and the projector into the budget, or into the one that the task suggests.

    Args:
        task: The trained network, its data and its metric.
        structure: The network's groups and layers.
        budget: `cost:amount`, or several; None for the task's.
        settings: How costs are counted.
        others: Cost → what a plan costs, of another origin: a device's.
    """
    text = task.budget if budget is None else budget
    if text is None:
        raise ValueError(f"task {task.name!r} suggests no budget; give one, such as budget=macs:0.5")
    measured = {"decode": partial(_decode, task, structure, settings.context)}
    countable = Countable(
        task.model,
        structure,
        task.example_input,
        forward=task.forward,
        settings=settings,
        others=others,
        measured=measured,
    )
    return countable, Projector(structure, parse_budget(text, countable, structure))


def _decode(task: Task, structure: Structure, context: int | None) -> CostModel:
    tokens = token_ids(task.example_input)
    read = context or (1 if tokens is None else tokens.shape[1])
    return decode_latency(task.model, structure, context=read, cache=MeasurementCache(cache_dir()))


def ranked_units(
    task: Task, structure: Structure, importance: Importance, *, seed: int
) -> tuple[Structure, Scores, Ranking]:
    """What the criterion says of every unit, and the order in which units are kept.

    Of groups that give all blocks one level, units are put in each block's own order in the structure returned.

    Args:
        task: The trained network, its data and its metric.
        structure: The network's groups and layers.
        importance: The criterion that orders units.
        seed: Of the random numbers, at least 0.
    """
    groups = separate(structure)
    generator = torch_generator(seed, "importance")
    given = CriterionInputs(task.model, groups, task.data.calibration, task.loss, task.forward, generator)
    scores: Scores = scored(importance, given)
    ranking = rank(scores, groups, criterion=criterion_name(importance))
    structure, scores, ranking = in_order(structure, scores, ranking)
    return structure, disk_backed(scores), ranking


def repaired_networks(
    task: Task, structure: Structure, ranking: Ranking, spec: ProblemSpec, *, proxy: Role
) -> tuple[Candidates, dict[str, Any]]:
    """The networks that plans stand for, with what repairs them; and why by this repair, as JSON.

    Args:
        task: The trained network, its data and its metric.
        structure: The network's groups and layers.
        ranking: Each group's units, most important first.
        spec: How plans are judged and bounded.
        proxy: Samples that rewards see.
    """

    @lru_cache(maxsize=1)  # options that differ in what is measured besides share one; large ones are not kept
    def reconstruction(settings: LeastSquares, *, centred: bool, only_errors: bool) -> Reconstruction:
        before_norms = followers(task.model, task.example_input, forward=task.forward) if centred else ()
        return reconstruct(
            task.model,
            structure,
            ranking,
            task.data.calibration,
            forward=task.forward,
            settings=settings,
            centred=frozenset(before_norms),
            generator=torch.Generator().manual_seed(0),  # the same rows for all seeds, which can share what they judge
            only_errors=only_errors,
        )

    def candidates_of(repair: Repair) -> Candidates:
        solved = reconstruction(
            repair.least_squares or CURVES,
            centred=repair.batch_norm == 1,  # then a constant offset of what a BatchNorm reads does not matter
            only_errors=repair.least_squares is None,
        )
        levels = _solved_levels(task, structure, repair, spec.evaluation.folder)
        maps = None
        if repair.replace_me is not None:
            maps = replacements(
                task.model, structure, task.data.calibration, forward=task.forward, settings=repair.replace_me
            )
        return Candidates(task, structure, ranking, repair, solved, levels, proxy, maps)

    candidates, record = choose_repair(spec.repair, task, structure, ranking, proxy=proxy, candidates_of=candidates_of)
    untouched = candidates.reconstruction.untouched
    too_large = {name: untouched[name] for name in candidates.reconstruction.too_large}
    return candidates, record | ({"too_large": too_large} if too_large else {})


def _solved_levels(task: Task, structure: Structure, repair: Repair, folder: Path | None) -> WeightLevels | None:
    """The weights of matrices that lose single ones, where those that stay are changed as well."""
    if repair.sparse_gpt is None:
        return None
    if not any(group.compared for group in structure.groups):
        raise ValueError(
            "repair=sparse_gpt changes matrices that lose single weights; set structure.prune=[weights] or 2:4"
        )
    if folder is None:
        raise ValueError("repair=sparse_gpt keeps what it has solved in files; set evaluation.store=shared or run")
    return sparse_gpt_levels(
        task.model,
        structure,
        task.data.calibration,
        forward=task.forward,
        settings=repair.sparse_gpt,
        folder=folder / "levels",
    )


def group_errors(structure: Structure, reconstruction: Reconstruction) -> dict[str, FloatArray]:
    """Group → how much of its readers' outputs is lost with its first k units, in closed form [units + 1].

    Args:
        structure: The network's groups and layers.
        reconstruction: Restored weights for every width.
    """
    return {group.name: _group_error(reconstruction, group) for group in structure.groups}


def _group_error(reconstruction: Reconstruction, group: Group) -> FloatArray:
    """Of a group none of whose readers is solved for, the share of its units that is gone."""
    try:
        return reconstruction.group_error(group.name)
    except KeyError:
        return 1 - np.arange(group.units + 1) / group.units
