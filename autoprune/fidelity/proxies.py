"""The proxies: what could stand for a plan's recovered accuracy while one searches. Each answer is one line on disk."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from autoprune.evaluation.outcome import Metrics, Outcome
from autoprune.plan import PruningPlan
from autoprune.runs import RunFolder
from autoprune.statistics import Floats
from autoprune.structure.groups import Structure

PROXIES, SINGLES = "proxies.jsonl", "singles.jsonl"
METRICS = ("accuracy", "loss", "kl", "agreement")

Evaluate = Callable[[Sequence[PruningPlan]], Sequence[Outcome]]
Kept = tuple[int, ...]
Json = Mapping[str, Any]


def judge_missing(
    run: RunFolder,
    file: str,
    plans: Sequence[tuple[Json, PruningPlan]],
    *,
    evaluate: Callable[[], Evaluate],
    on_plan: Callable[[int, int], None],
) -> None:
    """The file has a line of metrics for every plan; a plan whose line stands there already is not judged again.

    A plan that cannot be judged has no metrics, and `failed` says why.

    Args:
        run: The study's folder.
        file: Its name there.
        plans: What begins the line of a plan and tells it from all others, and the plan.
        evaluate: Makes ready what judges; called only where something is missing. It is asked plan by plan, so that
            none is raced.
        on_plan: Told how many are done, and of how many.
    """
    lines = run.read_lines(file)
    missing = [(key, plan) for key, plan in plans if not any(key.items() <= line.items() for line in lines)]
    if not missing:
        return
    judge = evaluate()
    for number, (key, plan) in enumerate(missing, start=1 + len(plans) - len(missing)):
        outcome = judge([plan])[0]
        failed = {} if outcome.failed is None else {"failed": outcome.failed}
        run.append(file, {**key, **asdict(outcome.metrics), **failed, "seconds": outcome.seconds})
        on_plan(number, len(plans))


def single_plans(structure: Structure, plans: Sequence[PruningPlan]) -> list[PruningPlan]:
    """For every group and every number of units that a plan keeps of it, the plan that prunes this group alone.

    Args:
        structure: The network's groups and layers.
        plans: Whose groups are pruned one at a time.
    """
    singles: dict[PruningPlan, None] = {}
    for plan in plans:
        for group, kept in enumerate(plan.kept):
            alone = structure.units
            alone[group] = kept
            singles[structure.plan(alone)] = None
    return list(singles)


def losses_alone(singles: Mapping[Kept, float], units: Kept, plans: Sequence[Kept]) -> Floats:
    """The KL of each group pruned alone as the plan prunes it, [plans, groups]. KeyError where one is missing.

    Args:
        singles: Plan that prunes one group → its loss.
        units: Units of each group [groups].
        plans: Units that each group keeps, plan by plan.
    """

    def alone(group: int, kept: int) -> float:
        return singles[(*units[:group], kept, *units[group + 1 :])]

    return np.array([[alone(group, kept) for group, kept in enumerate(plan)] for plan in plans], np.float64)


def metrics_of(record: Json) -> Metrics:
    """The metrics in a line; those that were not finite are NaN again."""
    values = {key: float("nan") if record[key] is None else float(record[key]) for key in METRICS}
    return Metrics(**values, samples=record["samples"])
