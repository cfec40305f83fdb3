"""The truth about a plan: how good its network is after recovery, and how much of that is seeds' noise."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from torch import nn

from autoprune.evaluation.judge import Judge
from autoprune.plan import PruningPlan
from autoprune.runs import RunFolder

TRUTH, SECONDS = "truth.jsonl", "seconds.jsonl"
EVERY = 3  # plans of which one is recovered for the shorter lengths too


class RecoveryTrial(NamedTuple):
    """One recovery of one plan."""

    budget: str
    """The text of the budget that the plan fills."""
    plan: int
    """Its number among the plans of this budget."""
    steps: int
    """Of training; 0 is before recovery."""
    seed: int
    """Of the training."""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "RecoveryTrial":
        """The trial that a line of one of the files is about."""
        return cls(*(record[name] for name in cls._fields))


def trials(budget: str, *, plans: int, steps: Sequence[int], seeds: int, repeated: int) -> Iterator[RecoveryTrial]:
    """Every plan before recovery and after the longest; every third plan at the lengths between.

    `repeated` plans, spread over all, are recovered for longest from more seeds: that is what seeds alone do.

    Args:
        budget: That the plans fill, such as macs:0.5.
        plans: How many there are.
        steps: Lengths of recovery, in training steps.
        seeds: How many seeds the repeated plans are recovered from.
        repeated: How many plans are recovered from several seeds.
    """
    again = {round(i * (plans - 1) / max(1, repeated - 1)) for i in range(repeated)}
    longest = max(steps)
    for plan in range(plans):
        for length in steps:
            if length in (0, longest) or plan % EVERY == 0:
                yield RecoveryTrial(budget, plan, length, seed=0)
        for seed in range(1, seeds if plan in again and longest else 1):
            yield RecoveryTrial(budget, plan, longest, seed)


def measure_truth(
    run: RunFolder,
    wanted: Sequence[RecoveryTrial],
    plans: Sequence[PruningPlan],
    *,
    recovered: Callable[[PruningPlan, int, int], nn.Module],
    judges: Mapping[str, Judge],
    on_trial: Callable[[int, RecoveryTrial], None],
) -> None:
    """`truth.jsonl` holds what each trial gave; what stands there already is not done again.

    Args:
        run: The study's folder.
        wanted: The trials.
        plans: Of the trials' budget.
        recovered: (plan, steps, seed) → the network after so many steps.
        judges: Role → its judge.
        on_trial: Told how many are done, and the last of them.
    """
    done = {RecoveryTrial.of(record) for record in run.read_lines(TRUTH)}
    for number, trial in enumerate(wanted, start=1):
        if trial not in done:
            start = time.perf_counter()
            network = recovered(plans[trial.plan], trial.steps, trial.seed)
            metrics = {role: asdict(judge(network)) for role, judge in judges.items()}
            run.append(TRUTH, {**trial._asdict(), "kept": list(plans[trial.plan].kept), **metrics})
            run.append(SECONDS, {**trial._asdict(), "seconds": time.perf_counter() - start})
        on_trial(number, trial)
