"""The truth about a plan: how good its network is after recovery, and how much of that is chance."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from autoprune.evaluation.judge import Judge
from autoprune.plan import PruningPlan
from autoprune.recover.recovery import Recovery
from autoprune.runs import RunFolder
from autoprune.seeding import torch_generator
from autoprune.task.task import Role, Task

TRUTH = "truth.jsonl"
EVERY = 3  # plans of which one is recovered for the shorter lengths too


@dataclass(frozen=True, slots=True)
class RecoveryTrial:
    """One recovery of one plan. budget: the text of the budget that the plan fills. steps: 0 is before recovery."""

    budget: str
    plan: int
    steps: int
    seed: int

    @property
    def key(self) -> tuple[str, int, int, int]:
        return self.budget, self.plan, self.steps, self.seed


def trials(budget: str, *, plans: int, steps: Sequence[int], seeds: int, repeated: int) -> Iterator[RecoveryTrial]:
    """Every plan before recovery and after the longest; every third plan at the lengths between.

    `repeated` plans, spread over all, are recovered for longest from more seeds: that is what chance alone does.
    """
    again = {round(i * (plans - 1) / max(1, repeated - 1)) for i in range(repeated)}
    longest = max(steps)
    for plan in range(plans):
        for length in steps:
            if length in (0, longest) or plan % EVERY == 0:
                yield RecoveryTrial(budget, plan, length, seed=0)
        for seed in range(1, seeds if plan in again and longest else 1):
            yield RecoveryTrial(budget, plan, longest, seed)


def find_truth(
    run: RunFolder,
    wanted: Sequence[RecoveryTrial],
    plans: Sequence[PruningPlan],
    *,
    task: Task,
    held_out: Role,
    pruned: Callable[[PruningPlan], nn.Module],
    recover: Callable[[int], Recovery],
    on_trial: Callable[[int, int, RecoveryTrial], None],
) -> None:
    """Adds to `truth.jsonl` what each trial gave, but for those that stand there already.

    plans: of the trials' budget. recover: the recovery of so many steps.
    """
    done = {_key(record) for record in run.read_lines(TRUTH)}
    judges = {"held_out": Judge(task, held_out), "test": Judge(task, task.data.test)}
    for number, trial in enumerate(wanted, start=1):
        if trial.key not in done:
            network = pruned(plans[trial.plan])
            if trial.steps:
                generator = torch_generator(trial.seed, "recover")
                network = recover(trial.steps)(network, task, teacher=task.model, generator=generator)
            found: dict[str, Any] = {role: asdict(judge(network)) for role, judge in judges.items()}
            run.append(TRUTH, {**asdict(trial), "kept": list(plans[trial.plan].kept), **found})
        on_trial(number, len(wanted), trial)


def _key(record: dict[str, Any]) -> tuple[str, int, int, int]:
    return record["budget"], record["plan"], record["steps"], record["seed"]
