"""From a task to everything a search needs to know about it: structure, ranking, costs, budget and objective."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.cost.budget import Budget, parse_budget
from autoprune.cost.counted import CostSettings, Countable
from autoprune.cost.model import CostModel, FloatArray
from autoprune.cost.projection import Projector
from autoprune.device.device import Device, on_steps
from autoprune.evaluation.candidates import Candidates
from autoprune.evaluation.incumbents import held_out_metrics
from autoprune.evaluation.judge import Judge, Score
from autoprune.evaluation.objective import Objective
from autoprune.evaluation.outcome import Metrics
from autoprune.evaluation.reward import Reward
from autoprune.evaluation.settings import EvaluationSettings
from autoprune.importance.criterion import Importance, rank
from autoprune.importance.disk_backed import disk_backed
from autoprune.plan import PruningPlan
from autoprune.problem.group_features import group_features
from autoprune.problem.objective_builder import build_objective
from autoprune.repair.folding import followers
from autoprune.repair.least_squares import LeastSquares, Reconstruction, reconstruct
from autoprune.repair.repair import Repair
from autoprune.repair.sparse_gpt_levels import sparse_gpt_levels
from autoprune.repair.weight_levels import WeightLevels
from autoprune.structure.edit import Ranking
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Group, Structure
from autoprune.task.task import Role, Task


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A task made ready for searching.

    errors: group → how much of its readers' outputs is lost with its first k units only [units + 1], in closed form.
    held_out: the search samples that rewards never see, to choose a plan by. measured: what was found out about this
    machine: precision, batch size, and how well the precision ranks. device: where networks will run, if that was said.
    """

    task: Task
    structure: Structure
    scores: Mapping[str, Tensor]
    ranking: Ranking
    costs: Mapping[str, CostModel]
    projector: Projector
    objective: Objective
    candidates: Candidates
    errors: Mapping[str, FloatArray]
    score: Score
    held_out: Role
    measured: Mapping[str, Any]
    device: Device | None = None
    uncounted: tuple[str, ...] = ()
    """What of the network's costs could not be counted, a sentence each."""

    @property
    def features(self) -> FloatArray:
        """[groups, len(GROUP_FEATURES)]: what an agent may see of each group, under this budget."""
        return group_features(
            self.structure, scores=self.scores, errors=self.errors, costs=self.costs, budget=self.projector.budget
        )

    def within(self, budget: Budget) -> "Prepared":
        """The same under another budget. What is judged for the one is known for the other."""
        projector = Projector(self.structure, budget)
        return replace(self, projector=projector, objective=replace(self.objective, budget=budget))

    def held_out_scores(self, networks: Mapping[str, nn.Module]) -> dict[str, float]:
        """Of networks, on search samples that no reward has seen; higher is better."""
        judge = Judge(self.task, self.held_out)
        return {name: self.score(judge(network)) for name, network in networks.items()}

    def held_out_metrics(self, plans: Sequence[PruningPlan]) -> list[Metrics | None]:
        """Each plan judged as the search judges, on held-out samples; None where it cannot be judged."""
        settings = {name: self.measured[name] for name in ("precision", "batch_size")}
        return held_out_metrics(self.candidates, self.held_out, plans, **settings)

    def pruned(self, plan: PruningPlan) -> nn.Module:
        """The smaller network, repaired from the calibration role; no gradient step was made."""
        return self.candidates.pruned(plan)


def prepare(
    task: Task,
    *,
    budget: str | Sequence[str] | None,
    importance: Importance,
    repair: Repair,
    score: Score,
    reward: Reward,
    round_to: int | Literal["device"],
    min_units: int,
    evaluation: EvaluationSettings,
    generator: torch.Generator,
    prune: tuple[str, ...] | None = None,
    costs: CostSettings | None = None,
    device: Device | None = None,
) -> Prepared:
    """Finds the task's groups, ranks their units, resolves the budget and builds the objective.

    budget: `cost:amount`, several of them, or None for the one the task suggests. prune: kinds of groups, or None for
    the task's. costs: how those are counted that not every record has.
    device: whose latency is a cost too. round_to="device": groups keep the widths that are steps of its latency.
    Raises ValueError where something does not fit.
    """
    text = budget or task.budget
    if text is None:
        raise ValueError(f"task {task.name!r} suggests no budget; give one, such as budget=macs:0.5")
    proxy, held_out = _split(task, evaluation.proxy_samples)
    structure = find_structure(
        task.model,
        task.example_input,
        keep=task.keep,
        prune=task.prune if prune is None else tuple(prune),
        round_to=1 if round_to == "device" else round_to,
        min_units=min_units,
    )
    if task.levels is not None:
        structure = evenly_spaced(structure, task.levels)
    others = {} if device is None else device.costs(task, structure)
    if round_to == "device":
        structure = _on_steps(structure, others)
    countable = Countable(
        task.model,
        structure,
        task.example_input,
        forward=task.forward,
        settings=costs or CostSettings(),
        others=others,
    )
    projector = Projector(structure, parse_budget(text, countable, structure))
    recorded = countable.recorded()
    scores = importance(
        task.model, structure, task.data.calibration, loss=task.loss, forward=task.forward, generator=generator
    )
    ranking = rank(scores, structure, criterion=_name(importance))
    scores = disk_backed(scores)
    reconstruction = reconstruct(
        task.model,
        structure,
        ranking,
        task.data.calibration,
        forward=task.forward,
        settings=repair.least_squares or CURVES,
        centred=frozenset(followers(task.model, task.example_input, forward=task.forward))
        if repair.batch_norm
        else frozenset(),
        generator=torch.Generator().manual_seed(0),  # the same rows for all seeds, which can share what they judge
    )
    levels = _levels(task, structure, repair, evaluation.store)
    candidates = Candidates(task, structure, ranking, repair, reconstruction, levels, proxy)
    objective, measured = build_objective(
        candidates, costs=recorded, projector=projector, score=score, reward=reward, settings=evaluation
    )
    errors = {group.name: _error(reconstruction, group) for group in structure.groups}
    return Prepared(
        task, structure, scores, ranking, recorded, projector, objective, candidates, errors, score, held_out, measured,
        device, countable.uncounted,
    )  # fmt: skip


# A search fits what it is rewarded by: with 500, its plans end 0.5 to 1 point worse on Fashion-MNIST (docs/design.md).
PROXY_SAMPLES = 1_500
CURVES = LeastSquares(ridge=1e-3, rows=4096)  # where nothing is repaired by them: only their errors are looked at


def evenly_spaced(structure: Structure, count: int) -> Structure:
    """The structure whose groups may keep `count` of their levels, nearest to equal steps up to all units.

    A group that has no more levels than that keeps them.
    """
    if count < 2:
        raise ValueError(f"task.levels must be at least 2, or a group has nothing to choose from; got {count}")
    groups = []
    for group in structure.groups:
        levels, wished = np.array(group.levels), group.units * np.arange(1, count + 1) / count
        nearest = np.unique(levels[np.abs(levels[:, None] - wished).argmin(axis=0)]).tolist()
        groups.append(replace(group, levels=group.levels if len(levels) <= count else tuple(nearest)))
    return replace(structure, groups=tuple(groups))


def _on_steps(structure: Structure, others: Mapping[str, CostModel]) -> Structure:
    if "latency" not in others:
        raise ValueError("structure.round_to=device needs a device, such as device=this_cpu; or set a whole number")
    return on_steps(structure, others["latency"])


def _levels(task: Task, structure: Structure, repair: Repair, store: Path | None) -> WeightLevels | None:
    """The weights of matrices that lose single ones, where those that stay are changed as well."""
    if repair.sparse_gpt is None:
        return None
    if not any(group.compared for group in structure.groups):
        raise ValueError(
            "repair=sparse_gpt changes matrices that lose single weights; set structure.prune=[weights] or 2:4"
        )
    if store is None:
        raise ValueError("repair=sparse_gpt keeps what it has solved in files; set evaluation.store=shared or run")
    return sparse_gpt_levels(
        task.model,
        structure,
        task.data.calibration,
        forward=task.forward,
        settings=repair.sparse_gpt,
        folder=store / "levels",
    )


def _error(reconstruction: Reconstruction, group: Group) -> FloatArray:
    """Of a group none of whose readers is solved for, the share of its units that is gone."""
    try:
        return reconstruction.group_error(group.name)
    except KeyError:
        return 1 - np.arange(group.units + 1) / group.units


def _name(importance: Importance) -> str:
    function = getattr(importance, "func", importance)  # a partial's function
    return getattr(function, "__name__", type(function).__name__)


def _split(task: Task, proxy_samples: int | None) -> tuple[Role, Role]:
    search = task.data.search
    if proxy_samples is None:
        proxy_samples = task.proxy_samples or min(PROXY_SAMPLES, len(search) // 2)
    if not 1 <= proxy_samples < len(search):
        raise ValueError(
            f"evaluation.proxy_samples must be in [1, {len(search) - 1}] to leave some of the search role's "
            f"{len(search)} samples held out, got {proxy_samples}"
        )
    return search[:proxy_samples], search[proxy_samples:]
