"""One agent in one cell, from several seeds: its trials, as `autoprune compare` reads them."""

import tempfile
import time
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoprune.comparison.run_summary import AnytimeCurve, MeasuredPlan, RunSummary
from autoprune.comparison.run_summary import RunIncumbent as Shown
from autoprune.evaluation.incumbents import Incumbent, spaced
from autoprune.evaluation.judge import kl
from autoprune.evaluation.outcome import Outcome
from autoprune.machine_cache import keep_freed_memory
from autoprune.plan import PruningPlan
from autoprune.prior.uniform_plan import uniform_plan
from autoprune.seeding import numpy_rng, torch_generator
from experiments.cells import kept
from experiments.configuration import composed, instantiate_part
from experiments.ladder.ready import Ready, ready, search_of
from experiments.ladder.rivals import rival
from experiments.ladder.stages import RIVALS, Job

SHOWN = 8  # incumbents of a search, which are judged on held-out samples


def trials_of(job: Job, cells: Path) -> list[dict[str, Any]]:
    """For every seed the trial, its score on the proxy, and its regret (uniform has 1) where the best plan is known."""
    torch.set_num_threads(1)
    keep_freed_memory(True)
    warnings.filterwarnings("ignore")
    rows: list[dict[str, Any]] = kept(cells, job.name, lambda: _found(job))
    return [_recovered(job, cells, row) if seed < job.recovered else row for seed, row in enumerate(rows, job.seeds[0])]


def _found(job: Job) -> list[dict[str, Any]]:
    at = ready(job.cell)
    worst = at.proxy(uniform_plan(at.problem.structure, at.problem.projector))
    rows = []
    for seed in job.seeds:
        trial = _rival(job, at, seed) if job.agent in RIVALS else _searched(job, at, seed)
        row: dict[str, Any] = {"trial": trial.as_json(), "score": at.proxy(trial.own.plan), "regret": None}
        if at.bounds is not None:
            row["regret"] = (at.bounds[0] - row["score"]) / (at.bounds[0] - worst)
        if job.agent == "torch_pruning":
            row["criterion"], _, _, row["as_it_comes"] = rival(job.cell)
        rows.append(row)
    return rows


@dataclass
class _Watch:
    """Writes down a search's best plans so far, and how long judging took."""

    start: float = field(default_factory=time.perf_counter)
    judging: float = 0.0
    best: list[Incumbent] = field(default_factory=list)

    def __call__(self, outcome: Outcome, evaluation: int, phase: str) -> None:
        self.judging += outcome.seconds
        if outcome.feasible and outcome.whole and (not self.best or outcome.score > self.best[-1].outcome.score):
            rest = max(0.0, time.perf_counter() - self.start - self.judging)
            self.best.append(Incumbent(outcome, evaluation, self.judging, rest))


def _searched(job: Job, at: Ready, seed: int) -> RunSummary:
    watch = _Watch()
    with tempfile.TemporaryDirectory() as folder:
        problem = at.problem.limited(job.evaluations, record=watch, seed=seed, folder=Path(folder))
        plan = search_of(job.agent, job.evaluations)(problem, rng=numpy_rng(seed, "search"))
    own_seconds = time.perf_counter() - watch.start - problem.objective.seconds
    trial = _trial(job, at, seed, _pruned(at, plan))
    incumbents = tuple(
        Shown(each.evaluation, each.outcome.score, kl(at.unseen(each.outcome.plan)), each.seconds, each.agent_seconds)
        for each in spaced(watch.best, most=SHOWN)
    )
    return replace(
        trial,
        spent=problem.objective.spent,
        seconds=watch.judging,
        agent_seconds=own_seconds,
        anytime=AnytimeCurve(incumbents, {"uniform": trial.baselines["uniform"].score}) if incumbents else None,
    )


def _rival(job: Job, at: Ready, seed: int) -> RunSummary:
    """The network as Torch-Pruning leaves it, or its widths with the criterion and the repair of the searches.

    The seed is that of its recovery.
    """
    _, plan, network, _ = rival(job.cell)
    pruned = _pruned(at, plan, None if job.agent == "torch_pruning_widths" else network)
    return replace(_trial(job, at, seed, pruned), spent=0)


def _trial(job: Job, at: Ready, seed: int, own: MeasuredPlan) -> RunSummary:
    structure = at.problem.structure
    return RunSummary(
        task=job.cell.task,
        agent=job.agent,
        seed=seed,
        budget=job.cell.budget,
        evaluations=job.evaluations,
        own=own,
        baselines={"uniform": _pruned(at, uniform_plan(structure, at.problem.projector))},
        optimum=None if at.bounds is None else at.bounds[1],
        dense=at.costs(structure.dense),
    )


def _pruned(at: Ready, plan: PruningPlan, network: nn.Module | None = None) -> MeasuredPlan:
    """What is measured of a plan's network, which is the searches' own where no other is given."""
    if at.table is not None:
        unseen, test = at.unseen(plan), None
    else:
        network = at.problem.pruned(plan) if network is None else network
        unseen, test = at.held_out(network), at.test(network)
    shown = [{} if of is None else {"kl": of.kl, "accuracy": of.accuracy} for of in (unseen, test)]
    return MeasuredPlan(plan, score=kl(unseen), held_out=shown[0], test=shown[1], costs=at.costs(plan))


def _recovered(job: Job, cells: Path, row: dict[str, Any]) -> dict[str, Any]:
    """The row with what its plan, and the uniform one, are on test data after the same training from the same seed."""
    trial = RunSummary.from_json(row["trial"])
    seed, uniform = trial.seed, trial.baselines["uniform"]
    theirs = rival(job.cell)[2] if job.agent == "torch_pruning" else None
    own = replace(trial.own, recovered=_after(job, cells, trial.own.plan, seed, theirs))
    uniform = replace(uniform, recovered=_after(job, cells, uniform.plan, seed))
    return {**row, "trial": replace(trial, own=own, baselines={"uniform": uniform}).as_json()}


def _after(job: Job, cells: Path, plan: PruningPlan, seed: int, network: nn.Module | None = None) -> dict[str, float]:
    """Test metrics after training from this seed; kept, as many trials have the same plan."""

    def train() -> dict[str, float]:
        at = ready(job.cell)
        task = at.problem.task
        recover = instantiate_part(composed(), "recover")
        trained = recover(
            at.problem.pruned(plan) if network is None else network,
            task,
            teacher=task.model,
            generator=torch_generator(seed, "recover"),
            on_step=lambda *_: None,
        )
        found = at.test(trained)
        return {"kl": found.kl, "accuracy": found.accuracy}

    widths = "-".join(map(str, plan.kept)) + ("" if network is None else "_torch_pruning")
    found: dict[str, float] = kept(cells, f"recovered_{job.cell.task}_{widths}_{seed}", train)
    return found
