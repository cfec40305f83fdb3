"""How an objective is put together: the evaluator in its precision, the pool that runs it, the store it shares."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from autoprune.cost.model import CostModel
from autoprune.cost.projection import Projector
from autoprune.evaluation.candidates import Candidates
from autoprune.evaluation.evaluator import Evaluator, SlicedEvaluator, TrainedEvaluator
from autoprune.evaluation.judge import Judge, Score, metrics_read
from autoprune.evaluation.objective import Objective
from autoprune.evaluation.reward import Reward
from autoprune.evaluation.settings import EvaluationSettings
from autoprune.evaluation.short_training import ShortTraining, TrainedNetworks
from autoprune.evaluation.store import EvaluationStore
from autoprune.evaluation.tuning import AGREES, BATCH_SIZES, BLOCKS, PLANS, agreement_of, fastest_batch
from autoprune.evaluation.workers import InProcess, Pool, Processes, RayActors
from autoprune.identity import identity_of
from autoprune.machine_cache import MeasurementCache, keep_freed_memory
from autoprune.structure.axes import Kept
from autoprune.tabular.table import Table, TablePool
from autoprune.tabular.table_match import check_match
from autoprune.task.samples import cuts, samples_within
from autoprune.task.training import supports_bf16


def build_objective(
    candidates: Candidates,
    *,
    costs: Mapping[str, CostModel],
    projector: Projector,
    score: Score,
    reward: Reward,
    settings: EvaluationSettings,
) -> tuple[Objective, dict[str, Any]]:
    """The objective, and what was measured to choose its settings.

    Args:
        candidates: What makes a plan's network.
        costs: Name → cost.
        projector: Moves plans into the budget.
        score: What is made of a network's metrics, higher is better.
        reward: What a search maximises.
        settings: How plans are judged.
    """
    make = partial(Objective, costs=costs, budget=projector.budget, score=score, reward=reward)
    if candidates.task.table is not None:  # it needs no store, no workers, and no race: it is one batch of samples
        table = Table.load(candidates.task.table)
        check_match(table, candidates, settings)
        measured = {name: table.card[name] for name in ("precision", "batch_size")}
        return make(batches=1, divisible=True, pool=TablePool(table)), measured
    read = metrics_read(score, reward)
    if read & {"accuracy", "loss"}:
        candidates.task.require_labels(f"a score or reward that reads {' and '.join(sorted(read))}")
    measured = _measured(candidates, settings, MeasurementCache(settings.folder))
    evaluator, trained = _evaluator(candidates, settings.training, measured)
    batches = len(cuts(len(candidates.proxy), measured["batch_size"])) - 1
    threads = 1 if settings.workers else torch.get_num_threads()
    store = None
    if settings.folder is not None:
        context = candidates.identity() | {"trained": trained, "torch": torch.__version__, "threads": threads}
        context |= {name: measured[name] for name in ("precision", "batch_size")}
        store = EvaluationStore(settings.folder / "evaluations.sqlite").within(context)
    objective = make(
        batches=batches,
        divisible=evaluator.divisible and not (evaluator.whole_metric and "accuracy" in read),
        pool=_pool(evaluator, settings),
        store=store,
        race=settings.race,
    )
    return objective, measured


def _evaluator(
    candidates: Candidates, training: ShortTraining | None, measured: Mapping[str, Any]
) -> tuple[SlicedEvaluator | TrainedEvaluator, dict[str, Any] | None]:
    """What judges plans, and what the training that comes first depends on, if any does."""
    if training is None:
        return candidates.evaluator(precision=measured["precision"], batch_size=measured["batch_size"]), None
    judge = Judge(candidates.task, candidates.proxy, batch_size=measured["batch_size"])
    return TrainedEvaluator(TrainedNetworks(training, candidates), judge), training.identity(candidates.task)


def _pool(evaluator: Evaluator, settings: EvaluationSettings) -> Pool:
    if settings.workers == 0:
        return InProcess(evaluator)
    common: dict[str, Any] = {
        "workers": settings.workers,
        "time_limit_s": settings.time_limit_s,
        "initialize": partial(keep_freed_memory, True),
    }
    if settings.pool == "ray":
        return RayActors(evaluator, address=settings.address, **common)
    return Processes(evaluator, **common)


def _measured(candidates: Candidates, settings: EvaluationSettings, notebook: MeasurementCache) -> dict[str, Any]:
    """precision, batch_size and, where bf16 was in question, `kendall`: how well it ranks as fp32 does."""
    asked: dict[str, Any] = {"weights": identity_of(candidates.task.model), "repair": repr(candidates.repair)}
    asked |= {"proxy": candidates.proxy.digest, "workers": settings.workers > 0}
    precision: str = settings.precision
    if precision == "auto" and candidates.own_precision == "bf16":
        precision = "bf16"  # there are no weights of more digits to compare with
    agreed: dict[str, Any] = {}
    if precision == "auto" and supports_bf16(candidates.task.device):
        agreement = partial(_bf16_agreement, candidates, settings.batch_size)
        agreed["kendall"] = notebook.get_or_measure({"question": "rank bf16", **asked}, agreement)
    if precision == "auto":
        precision = "bf16" if agreed.get("kendall", -1.0) >= AGREES else "fp32"
    elif precision == "bf16":
        _check_bf16(candidates)
    size = settings.batch_size
    if size == "auto":
        size = notebook.get_or_measure(
            {"question": "batch size", "precision": precision, "most": _largest_batch(candidates, settings), **asked},
            lambda: fastest_batch(
                lambda n: candidates.evaluator(precision=precision, batch_size=n, samples=n),
                candidates.structure.dense.kept,
                most=_largest_batch(candidates, settings),
            ),
        )
    return {"precision": precision, "batch_size": min(int(size), len(candidates.proxy)), **agreed}


def _check_bf16(candidates: Candidates) -> None:
    """Raises ValueError where torch cannot run the whole network in bf16."""
    try:
        evaluator = candidates.evaluator(precision="bf16", batch_size=2, samples=2)
        evaluator.judge(candidates.structure.dense.kept, 0, 1)
    except RuntimeError as error:
        raise ValueError(
            f"evaluation.precision=bf16: this network cannot be judged in it ({str(error).splitlines()[0]}); set "
            "evaluation.precision=fp32, or auto, which tries"
        ) from error


def _largest_batch(candidates: Candidates, settings: EvaluationSettings) -> int:
    """A race begins with one batch at least, which must not be more than its first part; large samples are fewer."""
    part = 1.0 if settings.race is None else settings.race.first
    return max(2, min(round(part * len(candidates.proxy)), samples_within(candidates.proxy.inputs, BATCH_SIZES[-1])))


def _bf16_agreement(candidates: Candidates, batch_size: int | Literal["auto"]) -> float:
    """Kendall's τ between bf16 and fp32 over plans from all but dense to all but empty."""
    structure, rng = candidates.structure, np.random.default_rng(0)
    plans: list[Kept] = []
    for density in np.linspace(0.3, 0.95, PLANS):
        targets = structure.units * np.clip(rng.normal(density, 0.1, len(structure.groups)), 0.1, 1)
        levels = [np.array(group.levels) for group in structure.groups]
        plans.append(tuple(int(level[np.abs(level - w).argmin()]) for level, w in zip(levels, targets, strict=True)))
    size = min(BLOCKS * candidates.task.block, len(candidates.proxy))
    batch = samples_within(candidates.proxy.inputs, size) if batch_size == "auto" else min(size, batch_size)
    rough, exact = (
        partial(candidates.evaluator, precision=p, batch_size=batch, samples=size) for p in ("bf16", "fp32")
    )
    return agreement_of(rough, exact, plans, batches=len(cuts(size, batch)) - 1)
