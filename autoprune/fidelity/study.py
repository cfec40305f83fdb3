"""The whole study on one page: plans, what proxies say of them, what recovery makes of them, how well the two agree."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from autoprune.cost.cost_units import written
from autoprune.evaluation.curves import single_group_curves
from autoprune.evaluation.judge import Judge, Score
from autoprune.fidelity.plans import sampled_plans
from autoprune.fidelity.proxies import Evaluate, find_proxies, find_singles
from autoprune.fidelity.summary import PLANS, SECONDS, STUDY, summarise
from autoprune.fidelity.truth import TRUTH, RecoveryTrial, find_truth, trials
from autoprune.plan import PruningPlan
from autoprune.problem.prepare import Prepared
from autoprune.records import describe_budget
from autoprune.recover.recovery import Recovery
from autoprune.repair.repair import Repair
from autoprune.report.progress import StageProgress
from autoprune.runs import RunFolder
from autoprune.search.sensitivity import sensitivity_plan
from autoprune.seeding import numpy_rng
from autoprune.task.task import Task

Ready = Callable[[str | None, Repair, Score], Prepared]  # (budget, repair, score); None: the task's own budget
Recover = Callable[[int], Recovery]  # steps → the recovery of so many


@dataclass(frozen=True, slots=True)
class Level:
    """So many plans that fill one budget, `repeated` of them recovered from every seed, the others from one.

    budget: None is, for the first level, what the task suggests, and half of the first level's budget for the others.
    """

    budget: str | None
    plans: int
    repeated: int


@dataclass(frozen=True, slots=True, eq=False)
class Study:
    """Goes on where a study in the same folder stopped, and ends with `fidelity.json`.

    repairs: each judges every plan, and every score follows from what it measured. trained: scores that train each
    network first; they cost too much to be recommended, and are shown beside the others. default: the repair and score
    that searches use now. start: the repair of the networks that are recovered. levels: the first is the one that the
    recommendation is made for. lengths: steps of recovery, 0 is none; the longest is the truth.
    conditions: what must be equal for going on, as JSON.
    """

    task: Task
    ready: Ready
    repairs: Mapping[str, Repair]
    scores: Mapping[str, Score]
    trained: Mapping[str, Score]
    default: tuple[str, str]
    start: str
    recover: Recover
    levels: Sequence[Level]
    lengths: Sequence[int]
    seeds: int
    seed: int
    conditions: Mapping[str, Any]
    run: RunFolder

    def execute(self) -> dict[str, Any]:
        """What `fidelity.json` holds. Proxies come first: an interrupted study has them for what was recovered."""
        levels = self._levels()
        self._begin(levels)
        plans = {prepared.projector.budget.text: self.plans(level, prepared) for level, prepared in levels}
        for budget, of_budget in plans.items():
            self.find_proxies(budget, of_budget)
        self.find_singles(levels[0][1], plans)
        for level, prepared in levels:
            self.find_truth(level, prepared, plans[prepared.projector.budget.text])
        return summarise(self.run, scores=self.scores)

    def plans(self, level: Level, prepared: Prepared) -> list[PruningPlan]:
        """The plans that stand in plans.json, else new ones, which then stand there."""
        known = self.run.read_json(PLANS) if self.run.has(PLANS) else {}
        budget, structure = prepared.projector.budget, prepared.structure
        if budget.text not in known:
            good = sensitivity_plan(
                structure, prepared.projector, single_group_curves(structure, prepared.objective.evaluate)
            )
            rng = numpy_rng(self.seed, "fidelity")
            found = sampled_plans(structure, prepared.projector, good, plans=level.plans, rng=rng)
            self.run.write_json(PLANS, {**known, budget.text: [plan.kept for plan in found]})
            return found
        if len(known[budget.text]) != level.plans:
            raise ValueError(
                f"{PLANS} holds {len(known[budget.text])} plans for {budget.text}, but {level.plans} are asked for; "
                "ask for as many, or choose another folder"
            )
        plans = [_fitting(kept, prepared) for kept in known[budget.text]]
        self._check_truth(plans, prepared)
        return plans

    def find_proxies(self, budget: str, plans: Sequence[PruningPlan]) -> None:
        """What every repair says of every plan, and what is left after each short training."""
        repair, score = self.default
        asked = {name: (name, self.scores[score]) for name in self.repairs}
        asked |= {name: (repair, trained) for name, trained in self.trained.items()}
        for name, (by, judged) in asked.items():
            with StageProgress() as progress:
                on_plan = partial(_advance, progress, f"{name}, {budget}")
                evaluate = partial(self._evaluate, budget, by, judged)
                find_proxies(self.run, budget, name, plans, evaluate=evaluate, on_plan=on_plan)

    def find_singles(self, prepared: Prepared, plans: Mapping[str, Sequence[PruningPlan]]) -> None:
        """The KL of each group pruned alone, as each plan of the first level prunes it."""
        main = prepared.projector.budget.text
        with StageProgress() as progress:
            on_plan = partial(_advance, progress, f"one group at a time, {main}")
            evaluate = prepared.objective.evaluate
            find_singles(self.run, prepared.structure, plans[main], evaluate=lambda: evaluate, on_plan=on_plan)

    def find_truth(self, level: Level, prepared: Prepared, plans: Sequence[PruningPlan]) -> None:
        """What every trial's recovery gives: the long part."""
        budget = prepared.projector.budget.text
        started = self.ready(budget, self.repairs[self.start], self.scores[self.default[1]])
        wanted = list(trials(budget, plans=level.plans, steps=self.lengths, seeds=self.seeds, repeated=level.repeated))
        with StageProgress() as progress:
            find_truth(
                self.run,
                wanted,
                plans,
                task=self.task,
                held_out=prepared.held_out,
                pruned=started.pruned,
                recover=self.recover,
                on_trial=_Stopwatch(self.run, progress),
            )

    def _levels(self) -> list[tuple[Level, Prepared]]:
        repair, score = self.default
        repairs, scores = ("repair", self.repairs), ("score", self.scores)
        for name, (kind, known) in ((repair, repairs), (score, scores), (self.start, repairs)):
            if name not in known:
                raise ValueError(f"the {kind} {name!r} must be among the {kind}s to compare, {list(known)}")
        if doubled := sorted(self.repairs.keys() & self.trained.keys()):
            raise ValueError(f"{doubled} name both a repair and a score that trains; rename the latter")
        first = self.ready(self.levels[0].budget, self.repairs[repair], self.scores[score])
        half = halved(first)
        others = [
            (level, self.ready(level.budget or half, self.repairs[repair], self.scores[score]))
            for level in self.levels[1:]
        ]
        return [(self.levels[0], first), *others]

    def _begin(self, levels: Sequence[tuple[Level, Prepared]]) -> None:
        """Writes study.json. Raises ValueError where another study stands in the folder."""
        conditions = json.loads(json.dumps(self.conditions))
        before = self.run.read_json(STUDY)["conditions"] if self.run.has(STUDY) else conditions
        if differing := sorted(k for k in before.keys() | conditions.keys() if before.get(k) != conditions.get(k)):
            raise ValueError(f"the study in {self.run.path} was made with other {differing}; choose another folder")
        self.run.write_json(STUDY, {**self._described(levels), "conditions": conditions})

    def _described(self, levels: Sequence[tuple[Level, Prepared]]) -> dict[str, Any]:
        task, prepared = self.task, levels[0][1]
        roles = {"held_out": prepared.held_out, "test": task.data.test}
        return {
            "task": task.name,
            "units": prepared.structure.units,
            "start": self.start,
            "default": dict(zip(("repair", "score"), self.default, strict=True)),
            "repairs": list(self.repairs),
            "lengths": list(self.lengths),
            "seeds": self.seeds,
            "samples": {
                "proxy": len(task.data.search) - len(prepared.held_out),
                **{name: len(role) for name, role in roles.items()},
            },
            "dense": {name: asdict(Judge(task, role)(task.model)) for name, role in roles.items()},
            "levels": [
                {**asdict(level), "budget": ready.projector.budget.text, "limit": describe_budget(ready)}
                for level, ready in levels
            ],
        }

    def _check_truth(self, plans: Sequence[PruningPlan], prepared: Prepared) -> None:
        budget, held_out = prepared.projector.budget.text, len(prepared.held_out)
        for record in self.run.read_lines(TRUTH):
            if record["budget"] != budget:
                continue
            number, samples = record["plan"], record["held_out"]["samples"]
            if number >= len(plans) or list(plans[number].kept) != record["kept"]:
                raise ValueError(
                    f"{TRUTH} and {PLANS} in {self.run.path} disagree on plan {number} of {budget}; "
                    "they are of different studies, choose another folder"
                )
            if samples != held_out:
                raise ValueError(
                    f"{TRUTH} in {self.run.path} was measured on {samples} held-out samples, now there are {held_out}; "
                    "choose another folder, or evaluation.proxy_samples as it was"
                )

    def _evaluate(self, budget: str, repair: str, score: Score) -> Evaluate:
        return self.ready(budget, self.repairs[repair], score).objective.evaluate


def halved(prepared: Prepared) -> str:
    """Half the budget, as a fraction of dense: macs:0.35 → macs:0.175; of several, half of each."""
    bounds = prepared.projector.budget.bounds
    return ",".join(f"{bound.cost.name}:{min(1.0, round(bound.relative / 2, 3)):g}" for bound in bounds)


def _fitting(kept: Sequence[int], prepared: Prepared) -> PruningPlan:
    """The plan of plans.json. Raises ValueError where it is not of this network, or exceeds the budget."""
    plan, budget = prepared.structure.plan(kept), prepared.projector.budget  # type: ignore[arg-type]
    cost = float(budget.cost([plan.kept])[0])  # type: ignore[arg-type]
    if cost > budget.limit:
        raise ValueError(f"a plan in {PLANS} costs {written(cost)} {budget.cost.unit}, more than {budget.text} allows")
    return plan


def _advance(progress: StageProgress, phase: str, done: int, of: int) -> None:
    progress.update(done, of=of, phase=phase, note="")


class _Stopwatch:
    """Shows each trial, and writes down the seconds of those that were computed now."""

    def __init__(self, run: RunFolder, progress: StageProgress) -> None:
        self.run, self.progress = run, progress
        self.known = {(r["budget"], r["plan"], r["steps"], r["seed"]) for r in run.read_lines(TRUTH)}
        self.last = time.perf_counter()

    def __call__(self, number: int, of: int, trial: RecoveryTrial) -> None:
        now = time.perf_counter()
        if trial.key not in self.known:
            self.run.append(SECONDS, {**asdict(trial), "seconds": now - self.last})
        self.last = now
        note = f"plan {trial.plan}, {trial.steps} steps, seed {trial.seed}"
        self.progress.update(number, of=of, phase=f"recover, {trial.budget}", note=note)
