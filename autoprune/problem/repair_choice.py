"""The repair that leaves the dense network what it is: tried before anything is judged on top of it."""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from autoprune.evaluation.candidates import Candidates
from autoprune.evaluation.judge import Judge
from autoprune.evaluation.outcome import joined
from autoprune.plan import PruningPlan
from autoprune.repair.least_squares import Reconstruction
from autoprune.repair.repair import AutomaticRepair, Repair
from autoprune.structure.edit import Ranking
from autoprune.structure.groups import Structure
from autoprune.task.samples import cuts, samples_within
from autoprune.task.task import Role, Task

SAME_KL = 0.1  # nats from itself, up to which the repaired dense network is said to be the dense network
SAMPLES = 200  # of the proxy that it is judged on, at most
BATCH = 50  # as many at a time as most proxies are judged in
MILD = 0.9  # of every group's units, that the mild plan keeps

log = logging.getLogger(__name__)


def choose_repair(
    repair: Repair | AutomaticRepair,
    task: Task,
    structure: Structure,
    ranking: Ranking,
    *,
    proxy: Role,
    candidates_of: Callable[[Repair], Candidates],
) -> tuple[Candidates, dict[str, Any]]:
    """The candidates by the repair that is chosen, and the record of why.

    Of several, it is the first where that leaves the dense network what it is, else the one by which a mild plan is
    nearest to it. A repair that was asked for by name is taken; where it changes the dense network, a warning says so.

    Args:
        repair: One, or several to choose from.
        task: Whose dense network is looked at.
        structure: Its groups.
        ranking: The order of their units.
        proxy: The samples that plans are judged on.
        candidates_of: Repair → the networks that plans stand for by it.

    Returns:
        The candidates, and a JSON record: `batch_norm`, the share of measured statistics; `parts`, what repairs, in
        words; `dense_kl`, how far the repaired dense network is from itself; and `mild_kl`, the same of a mild plan by
        each share, where it decided.
    """
    options = repair.options if isinstance(repair, AutomaticRepair) else (repair,)
    if task.table is not None:  # whose plans were judged by the first
        return candidates_of(options[0]), {"batch_norm": float(options[0].batch_norm)}
    options = _measurable(options, task, proxy)
    proxy = proxy[:SAMPLES]

    def dense_kl(option: Repair) -> float:
        bare = Repair(batch_norm=option.batch_norm)  # with all units, least squares give the dense weights
        return _kl(Candidates(task, structure, ranking, bare, Reconstruction({}, {}), None, proxy), structure.dense)

    first = dense_kl(options[0])
    record = {**_record(options[0], task), "dense_kl": first}
    if first <= SAME_KL or len(options) == 1:
        if first > SAME_KL:
            log.warning("%s", _warning(first))
        return candidates_of(options[0]), record
    mild, kl, best = _mild(structure), dict[Repair, float](), None
    for option in options:  # one after the other: what they solve for may be large
        candidates = candidates_of(option)
        kl[option] = _kl(replace(candidates, proxy=proxy), mild)
        if best is None or kl[option] < kl[best.repair]:
            best = candidates
    assert best is not None  # of no options there is no repair
    record = {**_record(best.repair, task), "dense_kl": dense_kl(best.repair)}
    return best, record | {"mild_kl": {f"{float(option.batch_norm):g}": kl[option] for option in options}}


def _has_batch_norms(network: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def _measurable(options: tuple[Repair, ...], task: Task, proxy: Role) -> tuple[Repair, ...]:
    """Those for which there are enough samples: one alone has no variance."""
    fewest = min(len(task.data.calibration), len(proxy))
    possible = tuple(option for option in options if not option.batch_norm)
    if fewest > 1 or not _has_batch_norms(task.model):
        return options
    if not possible:
        raise ValueError(
            f"BatchNorm's statistics cannot be measured on one sample, and there are {len(task.data.calibration)} for "
            f"calibration and {len(proxy)} that plans are judged on; give more, or set repair=least_squares"
        )
    return possible


def _record(repair: Repair, task: Task) -> dict[str, Any]:
    parts = []
    if _has_batch_norms(task.model):
        parts.append(f"batch_norm ({100 * repair.batch_norm:g} % of its statistics measured on the pruned network)")
    for name in ("least_squares", "sparse_gpt", "replace_me"):
        if getattr(repair, name) is not None:
            parts.append(name)
    return {"batch_norm": float(repair.batch_norm), "parts": parts}


def _mild(structure: Structure) -> PruningPlan:
    levels = [np.array(group.levels) for group in structure.groups]
    kept = [int(of[np.abs(of - MILD * units).argmin()]) for of, units in zip(levels, structure.units, strict=True)]
    return structure.plan(np.array(kept))


def _kl(candidates: Candidates, plan: PruningPlan) -> float:
    """From the dense network, of the plan's network as it is judged or as it is handed out, whichever is more."""
    size = min(samples_within(candidates.proxy.inputs, BATCH), len(candidates.proxy))
    try:
        evaluator = candidates.evaluator(precision=candidates.own_precision, batch_size=size)
        judged = joined(evaluator.judge(plan.kept, 0, len(cuts(len(candidates.proxy), size)) - 1)).metrics
        handed_out = Judge(candidates.task, candidates.proxy)(candidates.pruned(plan))
    except FloatingPointError:
        return math.inf
    return max(judged.kl, handed_out.kl)


def _warning(kl: float) -> str:
    return (
        f"the repair alone takes the dense network {kl:.2g} nats from itself, before anything is removed: BatchNorm's "
        "statistics of the calibration samples, or of a batch, are not those that it was trained with. Set "
        "repair=auto, which chooses one that does not, repair=least_squares, or give more calibration samples"
    )
