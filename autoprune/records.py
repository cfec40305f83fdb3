"""What a run writes down: each evaluation as it is made; structure, budget and curves as JSON."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from autoprune.cost.budget import Budget
from autoprune.evaluation.curves import Curve
from autoprune.evaluation.incumbents import Incumbent
from autoprune.evaluation.metered import POLICY
from autoprune.evaluation.outcome import Metrics, Outcome
from autoprune.problem.problem import Problem
from autoprune.report.progress import StageProgress, search_note
from autoprune.runs import RunFolder
from autoprune.structure.groups import Structure
from autoprune.tracking import Tracker

_log = logging.getLogger(__name__)


class Ledger:
    """A file of lines with which a run that was cut off, and is resumed, goes on.

    A resumed run does all that it did once more, for nothing where the evaluation store knows the answers, and so comes
    to the same lines. Those that stand there already are compared, by `keys`, and not written again.
    """

    def __init__(self, run: RunFolder, name: str, *, keys: tuple[str, ...]) -> None:
        self._run, self._name, self._keys = run, name, keys
        self._before = deque(run.read_lines(name))
        self._repeated: list[dict[str, Any]] = []

    def add(self, record: Mapping[str, Any]) -> bool:
        """The line stands in the file; returns whether it is new."""
        if self._before:
            if all(self._before[0].get(key) == record.get(key) for key in self._keys):
                self._repeated.append(self._before.popleft())
                return False
            self._set_aside(record)
        self._run.append(self._name, record)
        return True

    def forget(self, key: str, value: Any) -> None:
        """The lines with this value are not expected again: what they are about is done.

        Args:
            key: What is forgotten.
            value: What stands under that key in the lines.
        """
        done = [line for line in self._before if line.get(key) == value]
        self._repeated += done
        self._before = deque(line for line in self._before if line.get(key) != value)

    def _set_aside(self, record: Mapping[str, Any]) -> None:
        aside = f"{self._name}.before-resuming"
        for line in self._before:
            self._run.append(aside, line)
        self._run.write_lines(self._name, self._repeated)
        _log.warning(
            "the resumed run does not repeat %s: line %d was %s and is %s now (another machine, number of threads or "
            "version, or a store that is gone?). It goes on from there; the %d old lines stand in %s",
            self._name,
            len(self._repeated) + 1,
            {key: self._before[0].get(key) for key in self._keys},
            {key: record.get(key) for key in self._keys},
            len(self._before),
            self._run.path / aside,
        )
        self._before.clear()


@dataclass(frozen=True, slots=True)
class Ledgers:
    """A run's growing files."""

    history: Ledger
    """A line for each evaluation."""
    agent: Ledger
    """A line for each of the agent's reports, by its step."""
    recovery: Ledger
    """A line for each report of a plan's recovery."""

    @classmethod
    def of(cls, run: RunFolder) -> Self:
        """Returns the ledgers of the folder, with what stands in them."""
        return cls(
            history=Ledger(run, "history.jsonl", keys=("evaluation", "phase", "kept", "samples", "reward")),
            agent=Ledger(run, "agent.jsonl", keys=("step",)),
            recovery=Ledger(run, "recover.jsonl", keys=("plan", "step")),
        )


class Recorder:
    """Writes an evaluation down, then logs and shows it; keeps the plans that were the best so far.

    `seconds` are those of judging, as long as each plan takes when it is new; `agent_seconds` those of everything else.
    """

    def __init__(
        self,
        history: Ledger,
        tracker: Tracker,
        progress: StageProgress,
        *,
        limit: int,
        judging: Callable[[], float] = float,
    ) -> None:
        """Starts the clock.

        Args:
            history: Gets a line for each evaluation.
            tracker: Gets its metrics.
            progress: Shows how far the search is.
            limit: How many evaluations the search may spend.
            judging: Returns how many of the search's seconds it has waited for plans to be judged.
        """
        self.history, self.tracker, self.progress, self.limit, self.judging = history, tracker, progress, limit, judging
        self.incumbents: list[Incumbent] = []
        self.own: list[tuple[int, Outcome]] = []
        self.spent, self.seconds, self.agent_seconds = 0, 0.0, 0.0
        self.start = time.perf_counter()

    def __call__(self, outcome: Outcome, evaluation: int, phase: str) -> None:
        """The outcome of the evaluation of this number, counted from 1, is in the run's file."""
        elapsed = time.perf_counter() - self.start
        self.spent = evaluation
        self.seconds += outcome.seconds
        self.agent_seconds = max(0.0, elapsed - self.judging())
        best_so_far = self.incumbents[-1].outcome if self.incumbents else None
        if outcome.feasible and outcome.whole and (best_so_far is None or outcome.reward > best_so_far.reward):
            self.incumbents.append(Incumbent(outcome, evaluation, self.seconds, self.agent_seconds))
        best = self.incumbents[-1].outcome.score if self.incumbents else None
        if phase == POLICY:
            self.own.append((evaluation, outcome))
        record = {"evaluation": evaluation, "phase": phase, **outcome.as_json(), "elapsed": elapsed, "best": best}
        if self.history.add(record):
            self.tracker.log(_tracked(outcome, best, phase), axis="evaluation", step=evaluation)
        note = search_note(best=best, score=outcome.score)
        self.progress.update(evaluation, of=self.limit, phase=phase, note=note)


def _tracked(outcome: Outcome, best: float | None, phase: str) -> dict[str, float]:
    metrics = {f"search/{key}": value for key, value in asdict(outcome.metrics).items()}
    metrics |= {"search/score": outcome.score, "search/reward": outcome.reward, "search/seconds": outcome.seconds}
    metrics |= {f"cost/{name}": value for name, value in outcome.cost.items()}
    if phase == POLICY:
        metrics |= {"policy/score": outcome.score} | ({} if best is None else {"policy/gap": best - outcome.score})
    return metrics if best is None else metrics | {"search/best": best}


def describe_policy(own: Sequence[tuple[int, Outcome]], *, best: Outcome | None, uniform: Outcome) -> dict[str, Any]:
    """What result.json says of a learned policy's own plan.

    Args:
        own: Evaluation and outcome of each of the policy's own plans, at least one.
        best: Of the best plan that the search met; None where none was inside the budget.
        uniform: Of the uniform plan.
    """
    inside = [pair for pair in own if pair[1].feasible] or own  # a policy for several budgets has plans for them, too
    evaluation, outcome = max(reversed(inside), key=lambda pair: pair[1].reward)
    return {
        "plan": outcome.plan.as_json(),
        "evaluation": evaluation,
        "score": outcome.score,
        "gap": None if best is None else best.score - outcome.score,
        "uniform": uniform.score,
        "worse_than_uniform": outcome.score < uniform.score,
        "trials": [{"evaluation": at, "score": trial.score} for at, trial in own],
    }


def describe_card(card: str, policy: Mapping[str, Any]) -> str:
    """Returns the policy's card with what its own plan is worth in its last part, which replaces an earlier such part.

    Args:
        card: The card as it was saved.
        policy: What `describe_policy` says.
    """
    heading = "## Its own plan"
    worse = "It is worse than the uniform plan: do not use it as it is.\n" if policy["worse_than_uniform"] else ""
    text = f"Its score is {policy['score']:.4g} on the search's samples, the uniform plan's {policy['uniform']:.4g}.\n"
    return f"{card.partition(heading)[0].rstrip()}\n\n{heading}\n\n{text}{worse}"


def describe_structure(problem: Problem) -> dict[str, Any]:
    structure = problem.structure
    return {
        "groups": [
            {
                "name": group.name,
                "granularity": group.granularity,
                "units": group.units,
                "levels": list(group.levels),
                "layers": [layer.name for layer in structure.layers_of(group)],
                "reconstruction_error": [round(float(error), 6) for error in problem.errors[group.name]],
            }
            for group in structure.groups
        ],
        "round_to": problem.spec.structure.round_to,
        "uniform": list(problem.spec.structure.uniform),
        "unprunable": structure.unprunable,
        "uncounted": list(problem.uncounted),
        "dense": {name: float(cost(structure.units)) for name, cost in problem.costs.items()},
    }


def resolved_step(structure: Structure) -> int:
    """Returns the number that all levels are multiples of which leave units out: what `structure.round_to` came to."""
    return math.gcd(*(level for group in structure.groups for level in group.levels[:-1])) or 1


def describe_budget(problem: Problem) -> dict[str, Any]:
    """Returns run.json's budget: of several, the one that takes most of the dense network away, and all as `bounds`."""
    budget = problem.projector.budget
    bounds = [_described(bound) for bound in budget.bounds]
    return _described(budget.tightest) | {"text": budget.text} | ({"bounds": bounds} if budget.several else {})


def _described(budget: Budget) -> dict[str, Any]:
    return {
        "text": budget.text,
        "cost": budget.cost.name,
        "unit": budget.cost.unit,
        "limit": budget.limit,
        "dense": budget.dense,
        "relative": budget.relative,
    }


def describe_repair(record: Mapping[str, Any]) -> str:
    """What repairs, and what that does to the dense network, in a sentence; none of a table's."""
    if "dense_kl" not in record:
        return ""
    parts = ", ".join(record["parts"]) or "none"
    why = f", by which a mild plan is nearest to the dense network ({record['mild_kl']})" if "mild_kl" in record else ""
    without = ""
    if too_large := record.get("too_large"):
        name, reason = next(iter(too_large.items()))
        others = f" and {len(too_large) - 1} more" if len(too_large) > 1 else ""
        without = f"; least squares leave {name}{others} as pruning does: {reason}"
    apart = max(0.0, record["dense_kl"])
    return f"repair: {parts}{why}; the repaired dense network is {apart:.2g} nats from itself{without}"


def describe_measured(measured: Mapping[str, Any]) -> str:
    """Returns what was measured on this machine, in a sentence."""
    ranks = ""
    if "kendall" in measured:
        ranks = f" (bf16 ranks plans as fp32 does to a Kendall τ of {measured['kendall']:.2f})"
    return f"judging in {measured['precision']}{ranks}, {measured['batch_size']} samples at a time"


def describe_curves(problem: Problem, curves: Mapping[str, Curve]) -> dict[str, Any]:
    """Returns curves.json: group → its single-group plans, each with what it costs in score.

    Args:
        problem: What is to be solved: the task, its groups, costs, budget and objective.
        curves: Group → its loss at each of its levels, alone.
    """
    return {
        name: [
            {"kept": int(kept), "loss_of_score": lost, "score": outcome.score, **scalar_metrics(outcome.metrics)}
            for kept, lost, outcome in zip(curve.kept, curve.loss, curve.outcomes, strict=True)
        ]
        for name, curve in curves.items()
    }


def scalar_metrics(metrics: Metrics) -> dict[str, float]:
    """Returns the metrics by name, without the number of samples."""
    return {key: value for key, value in asdict(metrics).items() if key != "samples"}
