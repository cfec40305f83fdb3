"""From a task to everything a search needs to know about it: structure, ranking, costs, budget and objective."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from autoprune.cost.budget import parse_budget
from autoprune.cost.model import CostModel, macs, parameter_bytes, params
from autoprune.cost.projection import Projector
from autoprune.evaluation.judge import Score
from autoprune.evaluation.objective import Objective
from autoprune.evaluation.repair import Repair
from autoprune.evaluation.reward import Reward
from autoprune.importance.criterion import Importance, rank
from autoprune.structure.edit import Ranking
from autoprune.structure.graph import find_structure
from autoprune.structure.groups import Structure
from autoprune.task.task import Role, Task


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A task made ready for searching. held_out: the search samples that rewards never see, to choose a plan by."""

    task: Task
    structure: Structure
    scores: Mapping[str, Tensor]
    ranking: Ranking
    costs: Mapping[str, CostModel]
    projector: Projector
    objective: Objective
    repair: Repair
    score: Score
    held_out: Role


def prepare(
    task: Task,
    *,
    budget: str | None,
    importance: Importance,
    repair: Repair,
    score: Score,
    reward: Reward,
    round_to: int,
    min_units: int,
    proxy_samples: int | None,
    batch_size: int,
    precision: str,
    generator: torch.Generator,
) -> Prepared:
    """Finds the task's groups, ranks their units, resolves the budget and builds the objective.

    budget: `cost:amount`, or None for the one the task suggests. proxy_samples: how many of the search role's samples
    rewards are made of, the others are held out; None: half of them, at most 500.
    Raises ValueError where something does not fit.
    """
    text = budget or task.budget
    if text is None:
        raise ValueError(f"task {task.name!r} suggests no budget; give one, such as budget=macs:0.5")
    proxy, held_out = _split(task.data.search, proxy_samples)
    structure = find_structure(task.model, task.example_input, keep=task.keep, round_to=round_to, min_units=min_units)
    counted = (macs(structure), params(structure), parameter_bytes(structure))
    costs: dict[str, CostModel] = {cost.name: cost for cost in counted}
    projector = Projector(structure, parse_budget(text, costs, structure))
    scores = importance(task.model, structure, task.data.calibration, loss=task.loss, generator=generator)
    ranking = rank(scores, structure, criterion=_name(importance))
    objective = Objective(
        task,
        structure=structure,
        ranking=ranking,
        costs=costs,
        budget=projector.budget,
        repair=repair,
        score=score,
        reward=reward,
        proxy=proxy,
        batch_size=batch_size,
        precision=precision,
    )
    return Prepared(task, structure, scores, ranking, costs, projector, objective, repair, score, held_out)


def _name(importance: Importance) -> str:
    function = getattr(importance, "func", importance)  # a partial's function
    return getattr(function, "__name__", type(function).__name__)


def _split(search: Role, proxy_samples: int | None) -> tuple[Role, Role]:
    if proxy_samples is None:
        proxy_samples = min(500, len(search) // 2)
    if not 1 <= proxy_samples < len(search):
        raise ValueError(
            f"evaluation.proxy_samples must be in [1, {len(search) - 1}] to leave some of the search role's "
            f"{len(search)} samples held out, got {proxy_samples}"
        )
    return search[:proxy_samples], search[proxy_samples:]
