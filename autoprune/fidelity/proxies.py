"""The proxies: what could stand for a plan's recovered accuracy while one searches. Each answer is one line on disk."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from autoprune.evaluation.outcome import Metrics, Outcome
from autoprune.fidelity.rank_agreement import Floats
from autoprune.plan import PruningPlan
from autoprune.runs import RunFolder
from autoprune.structure.groups import Structure

PROXIES, SINGLES = "proxies.jsonl", "singles.jsonl"
METRICS = ("accuracy", "loss", "kl", "agreement")

Evaluate = Callable[[Sequence[PruningPlan]], Sequence[Outcome]]
Kept = tuple[int, ...]


def find_proxies(
    run: RunFolder,
    budget: str,
    proxy: str,
    plans: Sequence[PruningPlan],
    *,
    evaluate: Callable[[], Evaluate],
    on_plan: Callable[[int, int], None],
) -> None:
    """Adds to `proxies.jsonl` what the proxy says of each plan, but for those that stand there already.

    evaluate: makes ready what answers; it is called only where something is missing, and answers plan by plan, so that
    none is raced. A plan that cannot be judged has no metrics, and `failed` says why.
    """
    done = {(r["budget"], r["proxy"], r["plan"]) for r in run.read_lines(PROXIES)}
    missing = [number for number in range(len(plans)) if (budget, proxy, number) not in done]
    answer = evaluate() if missing else None
    for step, number in enumerate(missing, start=1 + len(plans) - len(missing)):
        assert answer is not None
        outcome = answer([plans[number]])[0]
        failed = {} if outcome.failed is None else {"failed": outcome.failed}
        record = {"budget": budget, "proxy": proxy, "plan": number, **asdict(outcome.metrics), **failed}
        run.append(PROXIES, {**record, "seconds": outcome.seconds})
        on_plan(step, len(plans))


def single_plans(structure: Structure, plans: Sequence[PruningPlan]) -> list[PruningPlan]:
    """For every group and every number of units that a plan keeps of it, the plan that prunes this group alone."""
    found: dict[PruningPlan, None] = {}
    for plan in plans:
        for group, kept in enumerate(plan.kept):
            alone = structure.units
            alone[group] = kept
            found[structure.plan(alone)] = None
    return list(found)


def find_singles(
    run: RunFolder,
    structure: Structure,
    plans: Sequence[PruningPlan],
    *,
    evaluate: Callable[[], Evaluate],
    on_plan: Callable[[int, int], None],
) -> None:
    """Adds to `singles.jsonl` the KL of each single-group plan, but for those that stand there already."""
    done = {tuple(record["kept"]) for record in run.read_lines(SINGLES)}
    wanted = single_plans(structure, plans)
    missing = [plan for plan in wanted if plan.kept not in done]
    answer = evaluate() if missing else None
    for step, plan in enumerate(missing, start=1 + len(wanted) - len(missing)):
        assert answer is not None
        run.append(SINGLES, {"kept": list(plan.kept), "kl": answer([plan])[0].metrics.kl})
        on_plan(step, len(wanted))


def losses_alone(singles: Mapping[Kept, float], units: Kept, plans: Sequence[Kept]) -> Floats:
    """The KL of each group pruned alone as the plan prunes it, [plans, groups]. KeyError where one is missing."""

    def alone(group: int, kept: int) -> float:
        return singles[(*units[:group], kept, *units[group + 1 :])]

    return np.array([[alone(group, kept) for group, kept in enumerate(plan)] for plan in plans], np.float64)


def metrics_of(record: Mapping[str, Any]) -> Metrics:
    """The metrics in a line; those that were not finite are NaN again."""
    values = {key: float("nan") if record[key] is None else float(record[key]) for key in METRICS}
    return Metrics(**values, samples=record["samples"])
